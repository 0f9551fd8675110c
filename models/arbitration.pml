/*
 * Arbitration on three coordinator disks (core/arbitration, core/takeover, core/join), safety: every order of commands, answers,
 * losses, freezes and restarts. There is no clock: waits may end at any moment, a race may be overtaken by its deadline at any moment,
 * and whatever a controller does not do yet, it does not do because it is frozen. Which line is which function, what is abstracted
 * and why that is sound: models/README.md.
 *
 * -DBUG_... plants a mistake that the checker must find.
 */

#ifndef LIVES
#define LIVES 1 /* crashes, of either */
#endif
#ifndef RACES
#define RACES 4 /* of both together */
#endif
#ifndef KEYS
#define KEYS 2 /* different coordinator keys that a controller uses in its lives */
#endif

#define D(i, d)  ((i) * 3 + (d))
#define OTHER(i) (1 - (i))

/* Modes (core/modes). OUT is also a dead controller: its commands may still be performed. */
mtype:mode = { STARTING, JOINING, PAIRED, RACING, ALONE, OUT };

/* Stages of a disk in a race (arbitration.ts, Stage); `ready` is a PREEMPT that is under way for long. */
#define NOTHING    0
#define READING    1
#define PREEMPTING 2
#define WON        3
#define LOST       4
#define FAILED     5

/* What is under way between a controller and a disk. */
#define IDLE       0
#define C_READ     1
#define C_PREEMPT  2
#define C_REGISTER 3
#define A_WON      4 /* the answer that the disk is ours, not looked at yet */

#define R_NONE        0
#define R_REGISTERING 1
#define R_REGISTERED  2

#ifdef BUG_MINORITY
#define MAJORITY 1
#else
#define MAJORITY 2
#endif

/* Age counts in the race of a guest only; as it once did everywhere: BUG_UNPROVED. */
#ifdef BUG_YOUNG
#define TOO_YOUNG(i, d, loss) false
#else
#ifdef BUG_UNPROVED
#define TOO_YOUNG(i, d, loss) (young[D(i,d)])
#else
#define TOO_YOUNG(i, d, loss) (!loss && young[D(i,d)])
#endif
#endif
#ifdef BUG_UNPROVED
#define UNPROVED(i, d, loss) false
#else
#define UNPROVED(i, d, loss) (loss && !proved[D(i,d)])
#endif
#ifdef BUG_LATE
#define IN_TIME(i) true
#else
#define IN_TIME(i) (!expired[i])
#endif

byte key[6];      /* on the disks: 0 none, else under which of its keys a controller is registered */

mtype:mode mode[2];
byte myKey[2];
bit expired[2];   /* the race has seen its deadline */
bit lostHim[2];   /* the race was begun by a loss, not by silence at a start */
bit said[2];      /* a beat "joining" or "paired" of the other, which answers us, is here or on its way */
bit stranger[2];  /* paired with a life of the other that is over */
bit won[2];       /* has won since it was last paired */

byte stage[6];
byte regState[6];
bit young[6];     /* registered while a race of the other was under way: that race may have counted the disk already */
bit proved[6];    /* the other has granted us a lease since: it had not lost us when we registered */
bit uncounted[6];      /* in the race under way the registration counts for nothing */
byte slot[6];
bit stale[6];     /* nobody waits for the command any more */
byte with[6];     /* PREEMPT: the key of its sender; REGISTER: the key */
byte victim[6];
byte lives;
byte races;
byte k;           /* scratch; 0 between steps */

#define COUNT(i, what)  ((stage[D(i,0)] == what) + (stage[D(i,1)] == what) + (stage[D(i,2)] == what))
#define OPEN(i)         (COUNT(i, READING) + COUNT(i, PREEMPTING))
#define REGISTERED(i)   ((regState[D(i,0)] == R_REGISTERED) + (regState[D(i,1)] == R_REGISTERED) + (regState[D(i,2)] == R_REGISTERED))
#define UNPROVEN_ON(i, d) (regState[D(i,d)] == R_REGISTERED && !proved[D(i,d)])
#define UNPROVEN(i)     (UNPROVEN_ON(i, 0) || UNPROVEN_ON(i, 1) || UNPROVEN_ON(i, 2))
#define LET_THROUGH(i)  ((key[D(i,0)] != 0) + (key[D(i,1)] != 0) + (key[D(i,2)] != 0))

inline idle(i, d) { slot[D(i,d)] = IDLE; stale[D(i,d)] = 0; with[D(i,d)] = 0; victim[D(i,d)] = 0 }

/* Whoever waited has gone. What can still change a disk stays on its way; everything else may be forgotten. */
inline abandon(i, d) {
#ifdef LATE
  if
  :: slot[D(i,d)] == C_PREEMPT || slot[D(i,d)] == C_REGISTER -> stale[D(i,d)] = 1
  :: else -> idle(i, d)
  fi
#else
  idle(i, d)
#endif
}

inline raceOver(i) {
  for (k : 0 .. 2) {
    if :: slot[D(i,k)] != C_REGISTER -> abandon(i, k) :: else fi;
    stage[D(i,k)] = NOTHING; uncounted[D(i,k)] = 0;
    young[D(OTHER(i),k)] = 0
  }
  k = 0; expired[i] = 0; lostHim[i] = 0
}

/* The partner, if it counts as paired with this life, will find that it is over. */
inline partOf(i) { if :: mode[OTHER(i)] == PAIRED -> stranger[OTHER(i)] = 1 :: else fi; said[OTHER(i)] = 0 }

/* takeover.ts outTick, join.ts forgetRegistrations; or the processes died. */
inline forget(i) {
  raceOver(i);
  for (k : 0 .. 2) {
    abandon(i, k);
    regState[D(i,k)] = R_NONE; young[D(i,k)] = 0; proved[D(i,k)] = 0
  }
  k = 0; said[i] = 0; stranger[i] = 0; won[i] = 0
}

inline prove(i) {
  for (k : 0 .. 2) { if :: regState[D(i,k)] == R_REGISTERED -> proved[D(i,k)] = 1 :: else fi }
  k = 0
}

inline goOut(i) { raceOver(i); partOf(i); mode[i] = OUT; said[i] = 0; stranger[i] = 0; printf("MSC: %d is out\n", i) }

/* takeover.ts judgeRace, arbitration.ts raceVerdict. */
inline judge(i) {
  if
  :: COUNT(i, WON) >= MAJORITY ->
    printf("MSC: %d wins\n", i);
    /* majoritySurvives: of two that have lost each other, one wins at most. */
    assert(!(lostHim[i] && won[OTHER(i)]));
    /* The coordinators refuse the beats of one that was alone until now: its solo leases end. */
    assert(mode[OTHER(i)] != ALONE || LET_THROUGH(OTHER(i)) < 2);
    raceOver(i);
    mode[i] = ALONE; won[i] = 1
  :: else ->
    if :: COUNT(i, WON) + OPEN(i) < MAJORITY -> goOut(i) :: else fi
  fi
}

/* takeover.ts beginRace and tooYoung, arbitration.ts startRace. */
inline begin(i, loss) {
  for (k : 0 .. 2) {
    stage[D(i,k)] = READING;
    uncounted[D(i,k)] = (regState[D(i,k)] != R_REGISTERED || TOO_YOUNG(i, k, loss) || UNPROVED(i, k, loss));
    if :: slot[D(i,k)] == IDLE -> slot[D(i,k)] = C_READ :: else fi
  }
  k = 0; said[i] = 0; stranger[i] = 0; lostHim[i] = loss;
  partOf(i);
  mode[i] = RACING;
  printf("MSC: %d races\n", i)
}

#ifdef BUG_NO_ABORT
#define SETTLED(i) true
#else
#define UNDER_WAY(i, d) (stale[D(i,d)] || (slot[D(i,d)] == C_REGISTER && mode[i] != PAIRED))
#define SETTLED(i) (!UNDER_WAY(i, 0) && !UNDER_WAY(i, 1) && !UNDER_WAY(i, 2))
#endif
#define READ_AGAIN(i, d) if :: slot[D(i,d)] == IDLE && stage[D(i,d)] == READING -> slot[D(i,d)] = C_READ :: else fi

/*
 * The one instant at which a command acts on the disk (hal/shelf/disk/reservations.ts), and what the racer makes of its answer
 * (arbitration.ts afterKeys, afterPreempt; takeover.ts takeoverReserved). A command may be under way for long, and so an answer:
 * only for the answer that wins it matters where that time went, because it may come too late.
 */
inline performRead(i, d) {
  idle(i, d);
  if
  :: uncounted[D(i,d)] -> stage[D(i,d)] = FAILED
  :: else ->
    if
    :: key[D(i,d)] != myKey[i] ->
#ifdef BUG_GONE_REGISTERS
      /* Rule 1 broken: a racer that was preempted puts its key back and tries again. */
      key[D(i,d)] = myKey[i]; slot[D(i,d)] = C_READ
#else
      stage[D(i,d)] = LOST
#endif
    :: key[D(i,d)] == myKey[i] && key[D(OTHER(i),d)] == 0 -> slot[D(i,d)] = A_WON
    :: else -> stage[D(i,d)] = PREEMPTING; slot[D(i,d)] = C_PREEMPT; with[D(i,d)] = myKey[i]; victim[D(i,d)] = key[D(OTHER(i),d)]
    fi
  fi;
  judge(i)
}

inline performPreempt(i, d) {
  k = stale[D(i,d)];
  if
  :: key[D(i,d)] == with[D(i,d)] && key[D(OTHER(i),d)] == victim[D(i,d)] ->
    key[D(OTHER(i),d)] = 0; idle(i, d);
    if :: k == 0 -> slot[D(i,d)] = A_WON :: else fi
  :: else ->
    idle(i, d);
#ifdef BUG_CONFLICT_WINS
    if :: k == 0 -> slot[D(i,d)] = A_WON :: else fi
#else
    if :: k == 0 -> stage[D(i,d)] = READING :: else fi
#endif
  fi;
  k = 0;
  READ_AGAIN(i, d)
}

/* join.ts joinAnswer. Young: a race of the other that has not seen its deadline may count this disk as won. */
inline performRegister(i, d) {
  key[D(i,d)] = with[D(i,d)];
  if
  :: stale[D(i,d)] -> skip
  :: else -> regState[D(i,d)] = R_REGISTERED; young[D(i,d)] = (mode[OTHER(i)] == RACING && !expired[OTHER(i)]); proved[D(i,d)] = 0
  fi;
  idle(i, d);
  READ_AGAIN(i, d)
}

/* One disk, as one controller uses it: what goes there, what comes back. */
proctype Disk(byte i; byte d) {
end:
  do
  :: d_step { slot[D(i,d)] == C_READ -> performRead(i, d) }
  :: d_step { slot[D(i,d)] == C_PREEMPT -> performPreempt(i, d) }
  :: d_step { slot[D(i,d)] == C_REGISTER -> performRegister(i, d) }
  :: d_step { slot[D(i,d)] == A_WON && IN_TIME(i) -> idle(i, d); stage[D(i,d)] = WON; judge(i) }
  /* An abandoned command that never arrives. */
  :: d_step { stale[D(i,d)] -> idle(i, d); READ_AGAIN(i, d) }
  /* No answer, or an error: it counts for nobody. The command may still be performed. */
  :: d_step { (mode[i] == RACING && (stage[D(i,d)] == READING || stage[D(i,d)] == PREEMPTING) && slot[D(i,d)] != C_REGISTER) ->
       stage[D(i,d)] = FAILED; abandon(i, d); judge(i) }
  :: d_step { (slot[D(i,d)] == C_REGISTER && !stale[D(i,d)]) -> abandon(i, d); regState[D(i,d)] = R_NONE; READ_AGAIN(i, d) }
  /* join.ts registerDue. */
  :: d_step { mode[i] == STARTING && slot[D(i,d)] == IDLE && regState[D(i,d)] == R_NONE ->
       with[D(i,d)] = myKey[i]; performRegister(i, d) }
  :: d_step { mode[i] == PAIRED && slot[D(i,d)] == IDLE && regState[D(i,d)] == R_NONE ->
       regState[D(i,d)] = R_REGISTERING; slot[D(i,d)] = C_REGISTER; with[D(i,d)] = myKey[i] }
  od
}

proctype Controller(byte i) {
end:
  do
  /* takeover.ts partnerLost: for any reason, at any moment. */
  :: d_step { mode[i] == PAIRED && races > 0 -> races--; begin(i, 1) }
  /*
   * join.ts mayRaceAlone: one that was frozen has heard nobody either. startup_wait_ms is longer than the deadline of a command and of
   * its abort: what was given up before has been performed by now, or never will be.
   */
  :: d_step { mode[i] == JOINING && races > 0 && SETTLED(i) && SETTLED(OTHER(i)) -> races--; begin(i, 0) }
  /* The clock reaches the deadline; then arbitration.ts raceDeadline, whenever the racer looks. */
  :: d_step { mode[i] == RACING && !expired[i] -> expired[i] = 1;
       for (k : 0 .. 2) { young[D(OTHER(i),k)] = 0 } k = 0 }
  :: d_step { mode[i] == RACING && expired[i] ->
       for (k : 0 .. 2) { if :: stage[D(i,k)] == READING || stage[D(i,k)] == PREEMPTING -> stage[D(i,k)] = FAILED :: else fi } k = 0;
       judge(i) }
  /* controller.ts partnerSeen (the partner is alone), refusedByCoordinators, diskFenced. */
  :: d_step { ((mode[i] == PAIRED && won[OTHER(i)]) || (mode[i] == ALONE && LET_THROUGH(i) < 2)) -> goOut(i) }
  /* takeover.ts outTick, or a new process: under the same key, or, when the epoch rose, under another. */
  :: atomic { mode[i] == OUT -> d_step { forget(i); mode[i] = STARTING };
       if :: myKey[i] = 1 :: KEYS == 2 -> myKey[i] = 2 fi }
  :: d_step { lives > 0 && mode[i] != OUT -> lives--; forget(i); partOf(i); mode[i] = OUT; printf("MSC: %d dies\n", i) }
  /* join.ts startingTick. */
  :: d_step { mode[i] == STARTING && REGISTERED(i) >= 2 -> mode[i] = JOINING }
  /* A beat of the other that answers this life of ours; it can be old when it comes. */
  :: d_step { mode[i] == JOINING && !said[i] &&
       (mode[OTHER(i)] == JOINING || (mode[OTHER(i)] == PAIRED && !stranger[OTHER(i)])) -> said[i] = 1 }
  /* controller.ts partnerSeen, pairsWith. */
  :: d_step { mode[i] == JOINING && said[i] -> mode[i] = PAIRED; won[i] = 0; said[i] = 0; prove(i);
       stranger[i] = !(mode[OTHER(i)] == JOINING || (mode[OTHER(i)] == PAIRED && !stranger[OTHER(i)])) }
  :: d_step { mode[i] == ALONE && mode[OTHER(i)] == JOINING -> mode[i] = PAIRED; won[i] = 0; stranger[i] = 0; prove(i) }
  /* A lease from the other, which names a beat that we sent after we were registered (controller.ts mayGrant). */
  :: d_step { mode[i] == PAIRED && !stranger[i] && UNPROVEN(i) &&
       (mode[OTHER(i)] == JOINING || (mode[OTHER(i)] == PAIRED && !stranger[OTHER(i)])) -> prove(i) }
  od
}

init {
  atomic {
    lives = LIVES; races = RACES;
    mode[0] = PAIRED; mode[1] = PAIRED; myKey[0] = 1; myKey[1] = 1;
    for (k : 0 .. 5) { key[k] = 1; regState[k] = R_REGISTERED; proved[k] = 1 }
    k = 0;
    /* A coordinator that one, or both, could not reach when the pair was made. */
    if
    :: skip
    :: key[0] = 0; regState[0] = R_NONE; proved[0] = 0
    :: key[0] = 0; regState[0] = R_NONE; proved[0] = 0; key[3] = 0; regState[3] = R_NONE; proved[3] = 0
    fi;
    run Controller(0); run Controller(1);
    run Disk(0, 0); run Disk(0, 1); run Disk(0, 2); run Disk(1, 0); run Disk(1, 1); run Disk(1, 2)
  }
}
