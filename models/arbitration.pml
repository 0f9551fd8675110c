/*
 * Arbitration on three coordinator disks (core/arbitration, core/takeover, core/join), safety: every order of commands, answers,
 * losses, freezes and restarts, and any number of each. There is no clock: waits may end at any moment, a race may be overtaken by its
 * deadline at any moment, and whatever a controller does not do yet, it does not do because it is frozen. Which line is which function,
 * what is abstracted and why that is sound: models/README.md.
 *
 * Nothing is counted. So that histories of any length have finitely many states, a state holds only what can still matter: what nobody
 * will read is 0, and what differs only in the order of the disks, in the names of the keys, or in which controller is which, is one
 * state (`sort`).
 *
 * -DBUG_... plants a mistake that the checker must find. -DUNSORTED leaves disks and controllers where they are, so that a trail can be read.
 */

#ifndef CRASHES
#define CRASHES 1 /* 0: no process dies */
#endif
#ifndef KEYS
#define KEYS 2 /* 1: a controller registers under the same key in all its lives */
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

/* Keys of a controller: that of its present life, and one of an earlier. */
#define NO_KEY   0
#define MINE     1
#define LAST_KEY 2

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

byte key[6];      /* on the disks: under which of its keys a controller is registered */

mtype:mode mode[2];
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
hidden byte k;    /* scratch */
hidden byte t;
hidden byte n;

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
  expired[i] = 0; lostHim[i] = 0
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
  said[i] = 0; stranger[i] = 0; won[i] = 0
}

/* In a pair nobody asks for the age of a registration any more. */
#ifdef BUG_UNPROVED
#define ASKS_AGE(i) true
#else
#define ASKS_AGE(i) (mode[i] == STARTING || mode[i] == JOINING)
#endif

inline prove(i) {
  for (k : 0 .. 2) {
    if :: regState[D(i,k)] == R_REGISTERED -> proved[D(i,k)] = 1 :: else fi;
    if :: !ASKS_AGE(i) -> young[D(i,k)] = 0 :: else fi
  }
}

/* The next life registers under another key: `MINE` is always that of the present one. */
#define RENAME(x) if :: x != NO_KEY -> x = MINE + LAST_KEY - x :: else fi
inline rename(i) { for (k : 0 .. 2) { RENAME(key[D(i,k)]); RENAME(with[D(i,k)]); RENAME(victim[D(OTHER(i),k)]) } }

inline goOut(i) {
  raceOver(i);
  for (k : 0 .. 2) {
    young[D(i,k)] = 0; proved[D(i,k)] = 0;
    if :: regState[D(i,k)] == R_REGISTERED -> regState[D(i,k)] = R_NONE :: else fi
  }
  partOf(i); mode[i] = OUT; said[i] = 0; stranger[i] = 0;
  printf("MSC: %d is out\n", i)
}

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
    proved[D(i,k)] = 0; /* not asked for before there is a pair again */
    if :: slot[D(i,k)] == IDLE -> slot[D(i,k)] = C_READ :: else fi
  }
  said[i] = 0; stranger[i] = 0; lostHim[i] = loss;
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
  :: uncounted[D(i,d)] -> stage[D(i,d)] = FAILED; uncounted[D(i,d)] = 0
  :: else ->
    if
    :: key[D(i,d)] != MINE ->
#ifdef BUG_GONE_REGISTERS
      /* Rule 1 broken: a racer that was preempted puts its key back and tries again. */
      key[D(i,d)] = MINE; slot[D(i,d)] = C_READ
#else
      stage[D(i,d)] = LOST
#endif
    :: key[D(i,d)] == MINE && key[D(OTHER(i),d)] == 0 -> slot[D(i,d)] = A_WON
    :: else -> stage[D(i,d)] = PREEMPTING; slot[D(i,d)] = C_PREEMPT; with[D(i,d)] = MINE; victim[D(i,d)] = key[D(OTHER(i),d)]
    fi
  fi;
  judge(i)
}

inline performPreempt(i, d) {
  t = stale[D(i,d)];
  if
  :: key[D(i,d)] == with[D(i,d)] && key[D(OTHER(i),d)] == victim[D(i,d)] ->
    key[D(OTHER(i),d)] = 0; idle(i, d);
    if :: t == 0 -> slot[D(i,d)] = A_WON :: else fi
  :: else ->
    idle(i, d);
#ifdef BUG_CONFLICT_WINS
    if :: t == 0 -> slot[D(i,d)] = A_WON :: else fi
#else
    if :: t == 0 -> stage[D(i,d)] = READING :: else fi
#endif
  fi;
  READ_AGAIN(i, d)
}

/* join.ts joinAnswer. Young: a race of the other that has not seen its deadline may count this disk as won. */
inline performRegister(i, d) {
  key[D(i,d)] = with[D(i,d)];
  if
  :: stale[D(i,d)] -> skip
  :: else -> regState[D(i,d)] = R_REGISTERED; young[D(i,d)] = (ASKS_AGE(i) && mode[OTHER(i)] == RACING && !expired[OTHER(i)]); proved[D(i,d)] = 0
  fi;
  idle(i, d);
  READ_AGAIN(i, d)
}

/*
 * After each step: the disks in the order of all that is known of them, and the controllers in the order of what they are. The search has
 * then seen all that differs from a state in these orders only, because nothing in the model depends on them.
 */
#define OF_DISK(i, d) (key[D(i,d)] + 4 * (stage[D(i,d)] + 8 * (regState[D(i,d)] + 4 * (slot[D(i,d)] + 8 * (victim[D(i,d)] + 4 * (with[D(i,d)] + \
  4 * (young[D(i,d)] + 2 * (proved[D(i,d)] + 2 * (uncounted[D(i,d)] + 2 * stale[D(i,d)])))))))))
#define BEFORE(d, e) (OF_DISK(0,d) < OF_DISK(0,e) || (OF_DISK(0,d) == OF_DISK(0,e) && OF_DISK(1,d) < OF_DISK(1,e)))
#define SWAP(a, x, y) t = a[x]; a[x] = a[y]; a[y] = t
inline swapAt(x, y) {
  SWAP(key, x, y); SWAP(stage, x, y); SWAP(regState, x, y); SWAP(slot, x, y); SWAP(victim, x, y); SWAP(with, x, y);
  SWAP(young, x, y); SWAP(proved, x, y); SWAP(uncounted, x, y); SWAP(stale, x, y)
}
inline inOrder(d) { if :: BEFORE(d + 1, d) -> swapAt(D(0,d), D(0,d + 1)); swapAt(D(1,d), D(1,d + 1)) :: else fi }

#define OF_CONTROLLER(i) (mode[i] + 8 * (expired[i] + 2 * (lostHim[i] + 2 * (said[i] + 2 * (stranger[i] + 2 * won[i])))))
#define DIFFERS(d) (OF_DISK(0,d) != OF_DISK(1,d))
#define FIRST_DISK (DIFFERS(0) -> 0 : (DIFFERS(1) -> 1 : 2))
/* Three exchanges of neighbours put the disks in order; then the controllers; and if these change places, the disks once more. */
inline sort() {
#ifdef UNSORTED
  skip
#else
  for (n : 0 .. 6) {
    if
    :: n == 3 ->
      k = FIRST_DISK;
      if
      :: OF_CONTROLLER(1) < OF_CONTROLLER(0) || (OF_CONTROLLER(1) == OF_CONTROLLER(0) && OF_DISK(1,k) < OF_DISK(0,k)) ->
        SWAP(mode, 0, 1); SWAP(expired, 0, 1); SWAP(lostHim, 0, 1); SWAP(said, 0, 1); SWAP(stranger, 0, 1); SWAP(won, 0, 1);
        for (k : 0 .. 2) { swapAt(D(0,k), D(1,k)) }
      :: else -> n = 6
      fi
    :: else -> inOrder((n & 1))
    fi
  }
  n = 0
#endif
}

/* One disk, as one controller uses it: what goes there, what comes back. */
proctype Disk(byte i; byte d) {
end:
  do
  :: d_step { slot[D(i,d)] == C_READ -> performRead(i, d); sort() }
  :: d_step { slot[D(i,d)] == C_PREEMPT -> performPreempt(i, d); sort() }
  :: d_step { slot[D(i,d)] == C_REGISTER -> performRegister(i, d); sort() }
  :: d_step { slot[D(i,d)] == A_WON && IN_TIME(i) -> idle(i, d); stage[D(i,d)] = WON; judge(i); sort() }
  /* An abandoned command that never arrives. */
  :: d_step { stale[D(i,d)] -> idle(i, d); READ_AGAIN(i, d); sort() }
  /* No answer, or an error: it counts for nobody. The command may still be performed. */
  :: d_step { (mode[i] == RACING && (stage[D(i,d)] == READING || stage[D(i,d)] == PREEMPTING) && slot[D(i,d)] != C_REGISTER) ->
       stage[D(i,d)] = FAILED; uncounted[D(i,d)] = 0; abandon(i, d); judge(i); sort() }
  :: d_step { (slot[D(i,d)] == C_REGISTER && !stale[D(i,d)]) -> abandon(i, d); regState[D(i,d)] = R_NONE; READ_AGAIN(i, d); sort() }
  /* join.ts registerDue. */
  :: d_step { mode[i] == STARTING && slot[D(i,d)] == IDLE && regState[D(i,d)] == R_NONE ->
       with[D(i,d)] = MINE; performRegister(i, d); sort() }
  :: d_step { mode[i] == PAIRED && slot[D(i,d)] == IDLE && regState[D(i,d)] == R_NONE ->
       regState[D(i,d)] = R_REGISTERING; slot[D(i,d)] = C_REGISTER; with[D(i,d)] = MINE; sort() }
  od
}

proctype Controller(byte i) {
end:
  do
  /* takeover.ts partnerLost: for any reason, at any moment. */
  :: d_step { mode[i] == PAIRED -> begin(i, 1); sort() }
  /*
   * join.ts mayRaceAlone: one that was frozen has heard nobody either. startup_wait_ms is longer than the deadline of a command and of
   * its abort: what was given up before has been performed by now, or never will be.
   */
  :: d_step { mode[i] == JOINING && SETTLED(i) && SETTLED(OTHER(i)) -> begin(i, 0); sort() }
  /* The clock reaches the deadline; then arbitration.ts raceDeadline, whenever the racer looks. */
  :: d_step { mode[i] == RACING && !expired[i] -> expired[i] = 1; for (k : 0 .. 2) { young[D(OTHER(i),k)] = 0 }; sort() }
  :: d_step { mode[i] == RACING && expired[i] ->
       for (k : 0 .. 2) { if :: stage[D(i,k)] == READING || stage[D(i,k)] == PREEMPTING -> stage[D(i,k)] = FAILED; uncounted[D(i,k)] = 0 :: else fi };
       judge(i); sort() }
  /* controller.ts partnerSeen (the partner is alone), refusedByCoordinators, diskFenced. */
  :: d_step { ((mode[i] == PAIRED && won[OTHER(i)]) || (mode[i] == ALONE && LET_THROUGH(i) < 2)) -> goOut(i); sort() }
  /* takeover.ts outTick, or a new process: under the same key, or, when the epoch rose, under another. */
  :: d_step { mode[i] == OUT -> forget(i); mode[i] = STARTING; sort() }
  :: d_step { KEYS == 2 && mode[i] == OUT -> forget(i); mode[i] = STARTING; rename(i); sort() }
  :: d_step { CRASHES && mode[i] != OUT -> forget(i); partOf(i); mode[i] = OUT; printf("MSC: %d dies\n", i); sort() }
  /* join.ts startingTick. */
  :: d_step { mode[i] == STARTING && REGISTERED(i) >= 2 -> mode[i] = JOINING; sort() }
  /* A beat of the other that answers this life of ours; it can be old when it comes. */
  :: d_step { mode[i] == JOINING && !said[i] &&
       (mode[OTHER(i)] == JOINING || (mode[OTHER(i)] == PAIRED && !stranger[OTHER(i)])) -> said[i] = 1; sort() }
  /* controller.ts partnerSeen, pairsWith. */
  :: d_step { mode[i] == JOINING && said[i] -> mode[i] = PAIRED; won[i] = 0; said[i] = 0; prove(i);
       stranger[i] = !(mode[OTHER(i)] == JOINING || (mode[OTHER(i)] == PAIRED && !stranger[OTHER(i)])); sort() }
  :: d_step { mode[i] == ALONE && mode[OTHER(i)] == JOINING -> mode[i] = PAIRED; won[i] = 0; stranger[i] = 0; prove(i); sort() }
  /* A lease from the other, which names a beat that we sent after we were registered (controller.ts mayGrant). */
  :: d_step { mode[i] == PAIRED && !stranger[i] && UNPROVEN(i) &&
       (mode[OTHER(i)] == JOINING || (mode[OTHER(i)] == PAIRED && !stranger[OTHER(i)])) -> prove(i); sort() }
  od
}

init {
  atomic {
    mode[0] = PAIRED; mode[1] = PAIRED;
    for (k : 0 .. 5) { key[k] = MINE; regState[k] = R_REGISTERED; proved[k] = 1 };
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
