/*
 * A planned move of one virtual server (core/transfer, core/vserver-stop, core/ownership): the disk with its reservation, the messages in
 * the beats, and everything that may happen meanwhile: either or both die or freeze at any step, lose each other while both live, come
 * back as guests; messages come late, twice, or out of order, also those of an earlier life and those that were said to one. There is no
 * clock: every limit may pass at any moment.
 *
 * Who wins a race is one step here (arbitration.pml), and a survivor opens the address when the other's gate has closed by itself
 * (gate.pml); only behind a `go` it opens at once. Which line is which function, what is abstracted and why that is sound:
 * models/README.md.
 *
 * A state holds only what can still matter: numbers and sessions are kept as what they are compared for, epochs count from the lowest that
 * anybody has (`rebase`), a message that nobody can take any more is forgotten, and values that nobody will read are 0.
 *
 * -DBUG_... plants a mistake that the checker must find.
 */

#ifndef MOVES
#define MOVES 1    /* offers and requests, by an operator or by a controller for which nobody comes */
#endif
#ifndef LOSSES
#define LOSSES 1   /* how often each loses a living partner: 1 is a split, seen by both or by one */
#endif
#ifndef FAILURES
#define FAILURES 0 /* steps of a virtual server that fail */
#endif
#ifndef CRASHES
#define CRASHES 0  /* of either, with restart */
#endif
#define EPOCHS 30  /* more never lie between the lowest and the highest: see the assertion in `rebase` */

#define OTHER(i) (1 - (i))
#define NOBODY 2

/* Modes. */
#define GONE    0 /* dead */
#define OUT     1
#define JOINING 2
#define PAIRED  3
#define ALONE   4

/* Phases of the virtual server, at each controller: between two commands to the disk. */
#define OFF        0
#define FAILED     1
#define REGISTER   2
#define KEYS       3
#define HOLDER     4
#define PREEMPT    5
#define RESERVE    6
#define CONFIRM    7
#define MOUNT      8
#define OPEN       9
#define SERVING    10
#define CLOSE      11
#define SEAL       12
#define ABANDON    13 /* the forced order: the service killed, nothing written */
#define RELEASE    14
#define UNREGISTER 15
#define TIDY       16 /* service stopped, unmounted, detached: in nobody's way */
#define OWNS(i)  (phase[i] > FAILED)
#define LET_GO(i) (phase[i] == TIDY || !OWNS(i))
#define STARTS(i) (phase[i] >= REGISTER && phase[i] <= OPEN)

/* File systems. */
#define ABSENT  0
#define MOUNTED 1 /* its kernel writes when it likes */
#define SEALED  2 /* written back, clean, shut down for good */

/* Transfers. */
#define NONE       0
#define OFFERED    1
#define STOPPING   2
#define RELEASED   3
#define REQUESTED  4
#define READY      5
#define STARTING   6
#define DECLINED   7 /* it is the source's to take it back */
#define SOURCE(i)  (transfer[i] >= OFFERED && transfer[i] <= RELEASED)
#define EXPECTS(i) (transfer[i] == REQUESTED || transfer[i] == READY)

#define offer   1
#define ready   2
#define refuse  3
#define go      4
#define started 5
#define failed  6
#define request 7

/* ---- the disk ---- */
byte key[2];            /* epoch of the key under which a controller is registered; 0 not registered */
byte holder = NOBODY;

/* ---- the coordinators ---- */
bit coordinated[2];

/* ---- a controller ---- */
byte mode[2];
byte epoch[2];
byte epochSeen[2];
byte phase[2];
byte victim[2];
bit byGo[2];            /* starts because the source said that its gate is closed */
bit failing[2];         /* stops because it failed */
byte volume[2];         /* the file system */
bit gate[2];
bit lease[2];           /* a gate may be open, or be opened, on what was proved before */
byte transfer[2];
bit sentBack[2];        /* the target failed while the source was still tidying up */
/* The partner as the newest beat has shown it to the main loop. */
byte sees[2];           /* its mode; GONE: no partner */
bit met[2];             /* that was a beat of its present life; 0: of one that is over, or of none */
bit rival[2];           /* it showed an epoch no lower than ours */
bit seenOwned[2];
bit heard[2];           /* the partner has heard what this controller is now, and grants */
bit answered[2];        /* and this controller knows it */

/* ---- messages ---- */
byte head[2];           /* of the outbox; 0 nothing */
byte second[2];
bit unread[2];          /* the partner's present life has not taken it */
/* A copy of an earlier message that could still be taken, in a beat that is on its way somewhere. */
byte late[2];           /* 0 none */
bit ended[2];           /* the life that said it is over */
byte lateMode[2];       /* what its sender showed then, */
bit raised[2];          /* and whether its epoch is another by now */
bit lateOwned[2];       /* what that beat shows, */
bit lateNews[2];        /* if the other has heard nothing later */
#ifdef BUG_LAST_LIFE
bit taken[2];           /* by the receiver's present life */
#endif

byte moves = MOVES;
byte losses[2];
byte failures = FAILURES;
byte crashes = CRASHES;
hidden byte m;          /* scratch: the message under way in a step */
hidden byte j;
hidden byte low;

#define MAX(a, b) ((a) > (b) -> (a) : (b))
/*
 * Another turn: the partner has not answered in it yet (docs/design/0021-turns.md). That is asked of guests and of those alone only, so
 * elsewhere it counts as done.
 */
#define GREETS(what) (what == JOINING || what == ALONE)
#define SET_MODE(i, what) mode[i] = what; heard[i] = !GREETS(what); answered[i] = heard[i]
#define RAISE(i, to) epoch[i] = to; raised[i] = (late[i] != 0)
#define CLAIMED(i) (phase[i] != OFF || transfer[i] == STARTING)
#if defined(BUG_RELEASE_ALWAYS)
#define IN_STEP(i) true
#elif defined(BUG_RELEASE_ALONE)
#define IN_STEP(i) (sees[i] == PAIRED)
#else
#define IN_STEP(i) (mode[i] == PAIRED && sees[i] == PAIRED)
#endif
/* The two believe each other's present lives. */
#define LINKED(i) (sees[i] != GONE && met[i] && mode[OTHER(i)] != GONE)

/* The other, which could hear it, still takes it for what it was. */
#define UNHEARD(i) (mode[OTHER(i)] > OUT && sees[OTHER(i)] != GONE)
/* Nothing that is younger than a loss would take has still to be heard. */
#define CURRENT(i) (sees[i] == GONE || (met[i] && sees[i] == mode[OTHER(i)] && seenOwned[i] == CLAIMED(OTHER(i))))

/* The disk takes writes of a registrant, and, when nobody holds it, of everybody. */
#define WRITES(i) (volume[i] == MOUNTED && (holder == NOBODY || key[i] != 0))

/* Whoever has said go has let go. */
#define GONE_FROM(i) (transfer[i] != RELEASED || (volume[i] != MOUNTED && !gate[i]))

/* neverTwoWriters, and releaseOnlyWhenGone: a free disk takes also the writes of one that was frozen while it served. */
inline check() {
  assert(!(WRITES(0) && WRITES(1)));
  assert(holder != NOBODY || (volume[0] != MOUNTED && volume[1] != MOUNTED));
  assert(GONE_FROM(0) && GONE_FROM(1))
}

#include "transfer-beats.pml"

/* What counts is by how much an epoch is above another: the lowest that anybody has is 1. */
#define LOWER(a, b) ((b) != 0 && (b) < (a) -> (b) : (a))
inline rebase() {
  assert(epoch[0] <= EPOCHS && epoch[1] <= EPOCHS);
  low = LOWER(epoch[0], epoch[1]);
  low = LOWER(low, key[0]); low = LOWER(low, key[1]); low = LOWER(low, victim[0]); low = LOWER(low, victim[1]);
  low = low - 1;
  if
  :: low > 0 ->
    for (j : 0 .. 1) {
      epoch[j] = epoch[j] - low; epochSeen[j] = epochSeen[j] - low;
      if :: key[j] != 0 -> key[j] = key[j] - low :: else fi;
      if :: victim[j] != 0 -> victim[j] = victim[j] - low :: else fi
    }
  :: else
  fi
}

/* takeover.ts takeServer. */
inline take(i, go_) {
  if :: epochSeen[i] > epoch[i] || rival[i] -> RAISE(i, epochSeen[i] + 1); epochSeen[i] = epoch[i]; rival[i] = 0
     :: else fi;
  phase[i] = REGISTER; byGo[i] = go_; failing[i] = 0;
  printf("MSC: %d starts, epoch %d\n", i, epoch[i])
}

/* vserver.ts failStep; vserver-stop.ts stopServer. */
inline fail(i) { phase[i] = CLOSE; failing[i] = 1; victim[i] = 0; byGo[i] = 0 }

inline stop(i) { if :: STARTS(i) || phase[i] == SERVING -> phase[i] = CLOSE; failing[i] = 0; victim[i] = 0; byGo[i] = 0 :: else failing[i] = 0 fi }

/* transfer.ts decline. */
#ifdef BUG_DECLINED_STARTS
#define DECLINE(i) transfer[i] = NONE
#else
#define DECLINE(i) transfer[i] = DECLINED
#endif

/* transfer.ts released. */
inline handOver(i) { transfer[i] = RELEASED; sentBack[i] = 0; say(i, go); printf("MSC: %d says go\n", i); check() }

/* takeover.ts goOut: gates close, then everything is abandoned without writing. */
inline goOut(i) {
  dropOutbox(i); transfer[i] = NONE; sentBack[i] = 0; coordinated[i] = 0;
  if
  :: !gate[i] && volume[i] == ABSENT -> phase[i] = OFF
  :: phase[i] != OFF && (gate[i] || volume[i] != ABSENT) -> phase[i] = CLOSE
  :: else
  fi;
  victim[i] = 0; failing[i] = 0; byGo[i] = 0;
  SET_MODE(i, OUT); printf("MSC: %d out\n", i)
}

inline race(i) {
  if
  :: coordinated[i] ->
    coordinated[OTHER(i)] = 0; SET_MODE(i, ALONE);
    RAISE(i, MAX(epoch[i], epochSeen[i]) + 2); epochSeen[i] = epoch[i];
    printf("MSC: %d wins, epoch %d\n", i, epoch[i])
  :: else -> goOut(i)
  fi
}

/* takeover.ts partnerLost, and the race. */
inline lose(i) {
  dropOutbox(i); transfer[i] = NONE; sentBack[i] = 0; sees[i] = GONE; seenOwned[i] = 0; rival[i] = 0; lateNews[OTHER(i)] = 0;
  if
  :: mode[i] == JOINING || mode[i] == ALONE -> answered[i] = 0
  :: else
  fi;
  if
  :: mode[i] == PAIRED -> race(i)
  :: else
  fi
}

/* A guest gives nothing away. */
#ifdef BUG_GUEST_CEDES
#define MAY_CEDE(i) true
#else
#define MAY_CEDE(i) (mode[i] == PAIRED)
#endif
/* What the partner claims was not left to us. */
#ifdef BUG_TAKEN_FROM_IT
#define IS_LEFT(i) true
#else
#define IS_LEFT(i) (!seenOwned[i])
#endif

/* ---- transfer.ts, message by message ---- */
inline onMessage(i) {
  if
  :: m == request ->
    if
    :: MAY_CEDE(i) && transfer[i] == NONE && phase[i] == SERVING -> transfer[i] = OFFERED; say(i, offer)
    /* Nobody has it. */
    :: MAY_CEDE(i) && transfer[i] == NONE && !OWNS(i) -> phase[i] = OFF; handOver(i)
    :: else -> say(i, refuse)
    fi
  :: m == offer ->
    if
    :: mode[i] == PAIRED && !OWNS(i) -> phase[i] = OFF; transfer[i] = READY; say(i, ready)
    :: else -> say(i, refuse)
    fi
  :: m == ready ->
    if
    :: transfer[i] == OFFERED && OWNS(i) -> transfer[i] = STOPPING; stop(i)
    :: transfer[i] == OFFERED && !OWNS(i) -> phase[i] = OFF; handOver(i)
    :: else
    fi
  :: m == refuse -> if :: transfer[i] == OFFERED || transfer[i] == REQUESTED -> transfer[i] = NONE :: else fi
  :: m == go ->
    if
    :: transfer[i] == STARTING -> skip
#ifdef BUG_GO_ANY_TIME
    :: transfer[i] != STARTING && phase[i] == OFF && mode[i] == PAIRED -> transfer[i] = STARTING; check(); take(i, 1)
    :: transfer[i] != STARTING && (phase[i] != OFF || mode[i] != PAIRED) -> DECLINE(i); say(i, failed)
#else
    :: EXPECTS(i) && phase[i] == OFF && mode[i] == PAIRED -> transfer[i] = STARTING; check(); take(i, 1)
    :: transfer[i] != STARTING && (!EXPECTS(i) || phase[i] != OFF || mode[i] != PAIRED) -> DECLINE(i); say(i, failed)
#endif
    fi
  :: m == started -> if :: SOURCE(i) -> transfer[i] = NONE; if :: phase[i] == FAILED -> phase[i] = OFF :: else fi :: else fi
  :: m == failed ->
    if
    :: transfer[i] == RELEASED && OWNS(i) -> sentBack[i] = 1
#ifndef BUG_NOT_TAKEN_BACK
    :: transfer[i] == RELEASED && !OWNS(i) -> transfer[i] = NONE; if :: mode[i] == PAIRED && IS_LEFT(i) -> take(i, 0) :: else fi
#endif
    :: else
    fi
  fi
}

proctype Main(byte i) {
end:
  do
  /* ---- the partner ---- */
  /* beat-hear.ts believe, endOf, newSession; controller.ts partnerSeen. */
  :: d_step { mode[i] > OUT && sees[i] != GONE && mode[OTHER(i)] != GONE &&
       (!met[i] || mode[OTHER(i)] == OUT || (mode[OTHER(i)] == JOINING && sees[i] > JOINING)) -> lose(i); rebase() }
  :: d_step { mode[i] > OUT && mode[OTHER(i)] > OUT && (sees[i] == GONE || (met[i] && !(mode[OTHER(i)] == JOINING && sees[i] > JOINING))) &&
       (!heard[OTHER(i)] || heard[i] != answered[i] || sees[i] != mode[OTHER(i)] || epochSeen[i] < epoch[OTHER(i)] || rival[i] != (epoch[OTHER(i)] >= epoch[i]) || seenOwned[i] != CLAIMED(OTHER(i))) ->
       look(i);
       if :: mode[i] == PAIRED && sees[i] == ALONE -> goOut(i) :: else fi; rebase() }
  /* Silence, for any reason; the other may be dead. */
  :: d_step { mode[i] > OUT && sees[i] != GONE && (mode[OTHER(i)] == GONE || losses[i] > 0) ->
       if :: mode[OTHER(i)] != GONE -> losses[i]-- :: else fi; lose(i); rebase() }
  /* pairUp. */
  :: d_step { mode[i] == JOINING && (sees[i] == JOINING || sees[i] == PAIRED) && answered[i] ->
       RAISE(i, epochSeen[i] + 1); epochSeen[i] = epoch[i]; rival[i] = 0; SET_MODE(i, PAIRED); rebase() }
  :: d_step { mode[i] == ALONE && sees[i] == JOINING && answered[i] -> SET_MODE(i, PAIRED); rebase() }
  /* mayRaceAlone: for so long nobody was heard, so the other is dead, or lost. */
  :: d_step { mode[i] == JOINING && sees[i] == GONE && (mode[OTHER(i)] == GONE || losses[i] > 0) ->
       if :: mode[OTHER(i)] != GONE -> losses[i]-- :: else fi; race(i); rebase() }
  /* refusedByCoordinators, diskFenced; the second is found only while the disk is used. */
  :: d_step { mode[i] > OUT && (!coordinated[i] || (volume[i] != ABSENT && key[i] == 0 && !LET_GO(i))) -> goOut(i); rebase() }
  :: d_step { mode[i] == OUT && (gate[i] || volume[i] != ABSENT || phase[i] != OFF) ->
       if :: gate[i] -> gate[i] = 0 :: else -> volume[i] = ABSENT fi;
       if :: volume[i] == ABSENT -> phase[i] = OFF :: else fi; rebase() }
  /* Heard to be out, or, which counts as a loss, not heard. */
  :: d_step { mode[i] == OUT && !gate[i] && volume[i] == ABSENT && phase[i] == OFF && (UNHEARD(i) -> losses[i] > 0 : 1) ->
       if :: UNHEARD(i) -> losses[i]-- :: else fi;
       if :: epochSeen[i] > epoch[i] -> RAISE(i, epochSeen[i]) :: else fi;
       sees[i] = GONE; seenOwned[i] = 0; rival[i] = 0; coordinated[i] = 1; SET_MODE(i, JOINING); rebase() }
  /* Death, and another life; its gates end by themselves. */
  :: d_step { crashes > 0 && mode[i] != GONE -> crashes--; dropOutbox(i); coordinated[i] = 0; epochSeen[i] = epoch[i]; SET_MODE(i, GONE); printf("MSC: %d dies\n", i);
       phase[i] = OFF; victim[i] = 0; failing[i] = 0; byGo[i] = 0; volume[i] = ABSENT; transfer[i] = NONE; sentBack[i] = 0;
       sees[i] = GONE; met[i] = 0; seenOwned[i] = 0; rival[i] = 0;
       /* Whoever has not met this life never will. */
       if :: !met[OTHER(i)] && !ended[i] -> forgetLate(i) :: else fi;
       WAS_SAID_TO_THE_LAST(OTHER(i)); unread[OTHER(i)] = (head[OTHER(i)] != 0); rebase() }
  :: d_step { mode[i] == GONE && !lease[i] -> coordinated[i] = 1; SET_MODE(i, JOINING);
       met[OTHER(i)] = 0; ended[i] = (late[i] != 0);
#ifdef BUG_LAST_LIFE
       taken[OTHER(i)] = 0;
#endif
       rebase() }

  /* ---- messages ---- */
  :: d_step { mode[i] > OUT && LINKED(i) && head[OTHER(i)] != 0 && UNREAD(i) ->
       unread[OTHER(i)] = 0; m = head[OTHER(i)]; look(i); WAS_TAKEN(OTHER(i));
       if :: mode[i] == PAIRED && sees[i] == ALONE -> goOut(i) :: else -> onMessage(i) fi; rebase() }
  :: d_step { mode[i] > OUT && sees[i] != GONE && late[OTHER(i)] != 0 && FRESH(i) ->
       m = late[OTHER(i)];
       if :: lateNews[OTHER(i)] -> seenOwned[i] = lateOwned[OTHER(i)] :: else fi;
       WAS_TAKEN(OTHER(i));
       onMessage(i); rebase() }
  /* Acknowledged: by a beat that also shows what came of it. */
  :: d_step { mode[i] > OUT && LINKED(i) && head[i] != 0 && met[OTHER(i)] && sees[OTHER(i)] != GONE &&
       !unread[i] && !(mode[OTHER(i)] == JOINING && sees[i] > JOINING) && mode[OTHER(i)] != OUT ->
       FORGOTTEN(i); head[i] = second[i]; second[i] = 0; unread[i] = (head[i] != 0); look(i);
       if :: mode[i] == PAIRED && sees[i] == ALONE -> goOut(i) :: else fi; rebase() }

  /* ---- the move ---- */
  :: d_step { moves > 0 && mode[i] == PAIRED && sees[i] == PAIRED && phase[i] == SERVING && transfer[i] == NONE ->
       moves--; transfer[i] = OFFERED; say(i, offer); printf("MSC: %d offers\n", i); rebase() }
  /* command.ts, which asks a member of the pair; placement.ts orphan, where the home does not come for it. */
  :: d_step { moves > 0 && mode[i] == PAIRED && sees[i] != GONE && transfer[i] == NONE && (seenOwned[i] -> sees[i] == PAIRED && !OWNS(i) : i == 1 && phase[i] == OFF) ->
       moves--; transfer[i] = REQUESTED; say(i, request); printf("MSC: %d requests\n", i); rebase() }
  :: d_step { mode[i] > OUT && transfer[i] == STOPPING && LET_GO(i) -> handOver(i); rebase() }
#ifdef BUG_GO_FIRST
  :: d_step { mode[i] > OUT && transfer[i] == STOPPING && phase[i] == SEAL -> handOver(i); rebase() }
#endif
  /* Limits. That of a move which was released is so long that the partner's beats have shown what became of it. */
  :: d_step { transfer[i] == OFFERED || transfer[i] == STOPPING || transfer[i] == REQUESTED || transfer[i] == READY -> transfer[i] = NONE; rebase() }
  :: d_step { transfer[i] == DECLINED && head[i] == 0 && CURRENT(i) -> transfer[i] = NONE; rebase() }
#ifndef BUG_NOT_TAKEN_BACK
  :: d_step { transfer[i] == RELEASED && !OWNS(i) && head[i] == 0 && LINKED(i) && seenOwned[i] == CLAIMED(OTHER(i)) && head[OTHER(i)] == 0 ->
       transfer[i] = NONE; sentBack[i] = 0;
       if :: !seenOwned[i] && mode[i] == PAIRED -> take(i, 0) :: else fi; rebase() }
#endif
  :: d_step { mode[i] > OUT && transfer[i] == STARTING && phase[i] == SERVING -> transfer[i] = NONE; say(i, started); rebase() }
  :: d_step { mode[i] > OUT && transfer[i] == STARTING && !OWNS(i) -> phase[i] = OFF; DECLINE(i); say(i, failed); rebase() }
  /* placement.ts orphan (home is 0), again; takeAll. */
  :: d_step { !OWNS(i) && transfer[i] == NONE && mode[i] == ALONE && coordinated[i] && !(phase[i] == FAILED && sees[i] != GONE && seenOwned[i]) -> take(i, 0); rebase() }
  :: d_step { phase[i] == OFF && transfer[i] == NONE && i == 0 && mode[i] == PAIRED && sees[i] == PAIRED && !seenOwned[i] -> take(i, 0); rebase() }
  :: d_step { phase[i] == FAILED && transfer[i] == NONE && mode[i] == PAIRED && sees[i] != GONE && !seenOwned[i] && CURRENT(i) -> take(i, 0); rebase() }
  od
}

/* One command at the disk at a time, and what is made of its answer (core/ownership, core/vserver). */
#define FOREIGN(i) (key[OTHER(i)])
inline readKeys(i) {
  if
  :: key[i] != epoch[i] || FOREIGN(i) >= key[i] -> epochSeen[i] = MAX(epochSeen[i], FOREIGN(i)); fail(i)
  :: else -> victim[i] = FOREIGN(i); phase[i] = HOLDER
  fi
}

/* The ground of a gate (gate.pml): a coordinator majority, or a partner that grants. */
#define GRANTS(i) (mode[i] == PAIRED || mode[i] == JOINING || (mode[i] == ALONE && sees[i] == JOINING && answered[i]))
#define PROVED(i) ((mode[i] == ALONE && coordinated[i]) || (mode[i] == PAIRED && sees[OTHER(i)] != GONE && met[OTHER(i)] && GRANTS(OTHER(i))))
/* takeover.ts openNotBefore: alone, when the other's leases have ended; but what was begun by a go opens at once. */
#ifdef BUG_NO_WAIT
#define SILENT(i) true
#else
#define SILENT(i) (mode[i] != ALONE || byGo[i] || !lease[OTHER(i)])
#endif
#define MAY(i) (mode[i] > OUT)

proctype Server(byte i) {
end:
  do
  :: d_step { MAY(i) && phase[i] == REGISTER -> key[i] = epoch[i]; phase[i] = KEYS; check(); rebase() }
  :: d_step { MAY(i) && phase[i] == KEYS -> readKeys(i); rebase() }
  :: d_step { MAY(i) && phase[i] == HOLDER ->
       if
       :: holder == OTHER(i) -> victim[i] = key[OTHER(i)]; phase[i] = PREEMPT
       :: holder != OTHER(i) && victim[i] != 0 -> phase[i] = PREEMPT
       :: holder == NOBODY && victim[i] == 0 -> phase[i] = RESERVE
       :: holder == i && victim[i] == 0 -> phase[i] = MOUNT
       fi; rebase() }
  :: d_step { MAY(i) && phase[i] == PREEMPT ->
       if
       :: key[i] == epoch[i] && victim[i] != 0 && key[OTHER(i)] == victim[i] -> key[OTHER(i)] = 0; if :: holder == OTHER(i) -> holder = i :: else fi
       :: else
       fi;
       victim[i] = 0; phase[i] = KEYS; check(); rebase() }
  :: d_step { MAY(i) && phase[i] == RESERVE ->
       if
       :: key[i] == epoch[i] && holder != OTHER(i) -> holder = i; phase[i] = CONFIRM
       :: else -> phase[i] = KEYS
       fi; check(); rebase() }
  :: d_step { MAY(i) && phase[i] == CONFIRM -> if :: key[i] == epoch[i] && FOREIGN(i) == 0 -> phase[i] = MOUNT :: else -> readKeys(i) fi; rebase() }
  /* Attaching asks the disk whether the reservation stands. */
  :: d_step { MAY(i) && phase[i] == MOUNT -> if :: holder == i && key[i] == epoch[i] -> volume[i] = MOUNTED; phase[i] = OPEN :: else -> fail(i) fi; check(); rebase() }
  :: d_step { MAY(i) && phase[i] == OPEN && (lease[i] || PROVED(i)) && SILENT(i) ->
       gate[i] = 1; lease[i] = 1; byGo[i] = 0; assert(!(gate[0] && gate[1]));
       if :: holder == i && key[i] == epoch[i] -> phase[i] = SERVING; printf("MSC: %d serves\n", i) :: else -> gate[i] = 0; fail(i) fi; rebase() }
  /* Any step may fail. */
  :: d_step { MAY(i) && (phase[i] == MOUNT || phase[i] == OPEN) && failures > 0 -> failures--; fail(i); rebase() }
  :: d_step { MAY(i) && phase[i] == CLOSE -> gate[i] = 0; phase[i] = (volume[i] == MOUNTED -> SEAL : (IN_STEP(i) -> RELEASE : TIDY)); rebase() }
  :: d_step { MAY(i) && phase[i] == SEAL ->
#ifndef BUG_RELEASE_UNSEALED
       volume[i] = SEALED;
#endif
       phase[i] = (IN_STEP(i) -> RELEASE : TIDY); rebase() }
#ifdef BUG_SEAL_BELIEVED
  :: d_step { MAY(i) && phase[i] == SEAL && failures > 0 -> failures--; phase[i] = (IN_STEP(i) -> RELEASE : TIDY); rebase() }
#else
  :: d_step { MAY(i) && phase[i] == SEAL && failures > 0 -> failures--; phase[i] = ABANDON; rebase() }
#endif
  :: d_step { MAY(i) && phase[i] == ABANDON -> volume[i] = ABSENT; phase[i] = (IN_STEP(i) -> RELEASE : TIDY); rebase() }
  :: d_step { MAY(i) && phase[i] == RELEASE -> if :: holder == i && key[i] != 0 -> holder = NOBODY :: else fi; phase[i] = UNREGISTER; check(); rebase() }
  :: d_step { MAY(i) && phase[i] == UNREGISTER -> key[i] = 0; if :: holder == i -> holder = NOBODY :: else fi; phase[i] = TIDY; check(); rebase() }
  :: d_step { MAY(i) && phase[i] == TIDY -> volume[i] = ABSENT; phase[i] = (failing[i] -> FAILED : OFF); failing[i] = 0;
       /* transfer.ts sourceTick, in the same step: that nobody owns it is not said in between. */
       if :: sentBack[i] && transfer[i] == RELEASED -> transfer[i] = NONE; sentBack[i] = 0; if :: IS_LEFT(i) -> take(i, 0) :: else fi :: else fi; rebase() }
  /* However frozen it is, its leases end, and its kernel closes the gate. */
  :: d_step { lease[i] && !PROVED(i) -> lease[i] = 0; gate[i] = 0; rebase() }
  od
}

#define WHOLE(i) (mode[i] == PAIRED && sees[i] == PAIRED && transfer[i] == NONE)
/* Nothing is left to be done, so one serves. */
proctype Quiet() {
  timeout -> assert((mode[0] == ALONE && phase[0] == SERVING) || (mode[1] == ALONE && phase[1] == SERVING) ||
    (WHOLE(0) && WHOLE(1) && ((phase[0] == SERVING && !OWNS(1)) || (phase[1] == SERVING && !OWNS(0)))))
}

init {
  atomic {
    key[0] = 1; holder = 0;
    byte i;
    for (i : 0 .. 1) {
      losses[i] = LOSSES; coordinated[i] = 1; heard[i] = 1; answered[i] = 1; mode[i] = PAIRED; sees[i] = PAIRED; met[i] = 1; epoch[i] = 1; epochSeen[i] = 1; rival[i] = 1
    }
    phase[0] = SERVING; volume[0] = MOUNTED; gate[0] = 1; lease[0] = 1; seenOwned[1] = 1;
    run Main(0); run Main(1); run Server(0); run Server(1); run Quiet()
  }
}
