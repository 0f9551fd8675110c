/*
 * The address gate: one floating address, its home (the holder), the controller that may take it over (the taker), and the kernels that
 * end leases by themselves (core/beat, core/beat-gates, core/pairing, core/takeover openNotBefore). Time is counted in ticks, as what is
 * *left* of each bound; 0 means that it has passed. Who does not act is frozen: a main loop, a beat process or both, for any time, between
 * any two steps. The kernels never are. Histories may be of any length; only the losses of a partner are counted.
 *
 * The coordinators are one disk here, because arbitration.pml shows that of two racers one wins a majority, which then refuses the
 * other's beats. Which line is which function, what is abstracted and why that is sound: models/README.md.
 *
 * -DBUG_... plants a mistake that the checker must find.
 */

#ifndef LOSSES
#define LOSSES 1 /* of either by the other, and races of a guest */
#endif
#ifndef DEATHS
#define DEATHS 0 /* of the holder's processes; its kernel lives on */
#endif

/* In ticks: gateTimeoutMs, soloGateTimeoutMs, the first lease, how late a kernel may be, and clockMarginMs. */
#ifndef GATE
#define GATE 1
#endif
#ifndef SOLO
#define SOLO 1
#endif
#define FIRST 1
#define LATE  1
#ifdef BUG_NO_MARGIN
#define MARGIN 0
#else
#define MARGIN 1
#endif
#define UNKNOWN 15 /* no bound is known */

/* Modes, as they are and as they are seen. NOBODY: not heard. KEEPS: paired, and says that it owns the virtual server. */
#define NOBODY  0
#define JOINING 1
#define PAIRED  2
#define RACING  3
#define ALONE   4
#define OUT     5
#define KEEPS   6

/* ---- the holder: kernel, beat process, main loop ---- */
byte gateH;             /* left of the lease; > 0: this kernel answers */
byte saysH = JOINING;   /* the mandate that has arrived: what the beats say, and on which ground the gate lives */
byte ackLease;
byte soloLease;
byte seesH;             /* the taker as its newest beat shows it; NOBODY: no contact */
bit aloneH;             /* a beat said that the taker is alone, and the main loop has not been told */
bit goneH;              /* partnerLost is on its way to the main loop, */
bit afterAloneH;        /* behind word that the taker is alone */
bit grantsH;
byte modeH = JOINING;
byte knownH;            /* the taker, as the main loop has been told */
byte serverH;           /* 0 off, 1 is to be served, 2 its gate is to be opened, 3 it has been, and is kept */
bit registeredH = 1;

/* ---- the taker: what it grants, and what it knows of the holder's leases ---- */
bit gateT;
bit serverT;            /* has taken the virtual server, and opens when it may */
byte wait;              /* left until openNotBefore */
byte sees;              /* the holder as its newest beat shows it; NOBODY: no contact */
bit seesGranting;
bit granting;
byte heard;             /* left of gateTimeout + margin since the newest beat came (heardAtMs) */
byte granted;           /* left of gateTimeout + margin since lastGrantedMs */
byte turned;            /* left of soloGateTimeout + margin since the holder said first that it is not alone (pairedHeardAtMs) */
byte known;             /* the holder, as the main loop has been told */
bit lost;               /* partnerLost is on its way to the main loop */
byte lostEnds;          /* with it: left until the holder's gate has ended, as far as that loss knows */
bit pairLost;           /* a pair's loss began this race: `ends` counts */
byte ends;
byte modeT = JOINING;
byte losses = LOSSES;
byte deaths = DEATHS;
bit wonT;               /* the disk is its own, the answer is not looked at yet */
bit registeredT = 1;

/*
 * How far the present turn of each has come, and the answer to it: 0 nowhere, 1 with its beat process, 2 in a beat, 3 with the other's
 * beat process, 4 in a beat that answers it, 5 with its own beat process, 6 with its main loop.
 */
byte turnH;
byte turnT = 1;

/* ---- the wire ---- */
byte toTaker;           /* a beat of the holder is on its way */
bit grantingH;
bit bornH;              /* the holder died: the taker has not met its present life */
bit ofBornH;            /* and the beat is of that life */
byte toHolder;          /* a beat of the taker */
byte lease;             /* left of the lease in it */
#ifdef BUG_GRANT_ANY_CONTACT
bit stray;
#endif
#ifdef BUG_SOLO_FROM_ANSWER
bit written;
#endif

#define MAX(a, b) ((a) > (b) -> (a) : (b))
#define MIN(a, b) ((a) < (b) -> (a) : (b))
#define GROUND (saysH == PAIRED || saysH == RACING -> ackLease : (saysH == ALONE -> soloLease : 0))
#ifdef BUG_LEASE_FROM_NOW
#define LEASE (heard > 0 -> GATE : 0)
#else
#define LEASE (heard > MARGIN -> heard - MARGIN : 0)
#endif

/* pairing.ts: what was said before our present turn was heard was said to somebody else. */
#ifdef BUG_ANY_TURN
#define ANSWERED(turn, here) true
#else
#define ANSWERED(turn, here) (turn >= here)
#endif
/* pairing.ts mayGrant; beat-send.ts mayGrant, which looks again at each beat. */
#ifdef BUG_GRANT_ALONE
#define MAY_GRANT(mode, knows, turn, here) (mode == JOINING || mode == PAIRED || mode == ALONE)
#else
#define MAY_GRANT(mode, knows, turn, here) (mode == JOINING || mode == PAIRED || (mode == ALONE && knows == JOINING && ANSWERED(turn, here)))
#endif
#define SAYS_T (modeT == PAIRED && serverT -> KEEPS : modeT)

#define AHEAD(turn, from) if :: turn == from -> turn = from + 1 :: else fi
#define BACK(turn, to) if :: turn == to + 1 -> turn = to :: else fi
/* controller-state.ts setMode. The taker's mandate arrives at once. */
#define SET_H(mode) modeH = mode; turnH = 0
#define SET_T(mode) modeT = mode; turnT = 1

/* neverTwoAnswers */
inline check() { assert(!(gateH > 0 && gateT)) }

/* beat-gates.ts renewGates. */
inline renew() {
  if
  :: serverH == 3 && gateH > 0 && GROUND > 0 -> gateH = MAX(gateH, GROUND + LATE)
  :: else
  fi;
  check()
}

/* beat-loss.ts lose, soloBound. */
inline loseT() {
  sees = NOBODY; seesGranting = 0; lost = 1; heard = 0;
#ifndef BUG_GRANT_ON
  granting = 0;
#endif
#ifdef BUG_GRANT_ANY_CONTACT
  stray = 1;
#endif
  lostEnds = (turned == UNKNOWN -> UNKNOWN : MAX(granted, turned));
  turned = 0
}

inline loseH() { seesH = NOBODY; afterAloneH = (aloneH || afterAloneH); aloneH = 0; grantsH = 0; goneH = 1 }

/* beat-hear.ts believe, endOf. */
inline believeT() {
  AHEAD(turnH, 2); AHEAD(turnT, 4);
  /* newSession: the end of the last life is a loss, told before the next one is shown. */
  if
  :: ofBornH -> bornH = 0; ofBornH = 0; if :: sees != NOBODY -> loseT() :: else fi
  :: else
  fi;
  if
  :: toTaker == OUT || (toTaker == JOINING && sees != NOBODY && sees != JOINING) -> if :: sees != NOBODY -> loseT() :: else fi
  :: else ->
    heard = GATE + MARGIN;
    if
    :: toTaker == ALONE -> turned = UNKNOWN
    :: toTaker != ALONE && (sees == NOBODY || turned == UNKNOWN) -> turned = SOLO + MARGIN
    :: else
    fi;
    sees = toTaker; seesGranting = grantingH
  fi;
  toTaker = NOBODY; grantingH = 0
}

/* The other side: the lease counts from the sending of what it acknowledges. */
inline believeH() {
  AHEAD(turnT, 2); AHEAD(turnH, 4);
  ackLease = MAX(ackLease, lease);
  if
  :: toHolder == OUT || (toHolder == JOINING && seesH != NOBODY && seesH != JOINING) -> if :: seesH != NOBODY -> loseH() :: else fi
  :: else -> seesH = toHolder; if :: seesH == ALONE -> aloneH = 1 :: else fi
  fi;
  toHolder = NOBODY; lease = 0;
  renew()
}

/* takeover.ts win, openNotBefore. */
inline winT() {
  if
  :: !serverT ->
#ifdef BUG_NO_WAIT
    wait = 0;
#else
    wait = (pairLost && ends != UNKNOWN -> ends : SOLO + MARGIN);
#endif
    serverT = 1
  :: else
  fi;
  SET_T(ALONE); wonT = 0; pairLost = 0; ends = 0;
  printf("MSC: taker wins, waits %d ticks\n", wait)
}

inline outT() { SET_T(OUT); wonT = 0; pairLost = 0; ends = 0; gateT = 0; serverT = 0; wait = 0 }
inline outH() { SET_H(OUT) }

#define DOWN(x) if :: x > 0 && x != UNKNOWN -> x-- :: else fi

/* What the beat process had to tell has been told: answers of the coordinators come through it too, and so behind that. */
#define TOLD_H (!goneH && !aloneH && knownH == seesH)
#define TOLD_T (!lost && known == sees)

/* With -DWHOLE, controllers freeze as a whole: the processes of one know the same. */
#define SETTLED_H (TOLD_H && turnH != 0 && turnH != 5)
#define SETTLED_T (TOLD_T && turnT != 5)
#ifdef WHOLE
#define ORDERLY(settled) provided (settled)
#else
#define ORDERLY(settled)
#endif

active proctype HolderBeat() ORDERLY(SETTLED_H && SETTLED_T) {
end:
  do
  /* beat-send.ts send; a beat that is overtaken is one that was not sent. */
  :: d_step { toTaker == NOBODY -> toTaker = saysH; ofBornH = bornH; grantingH = (grantsH && MAY_GRANT(saysH, seesH, turnH, 5)); AHEAD(turnH, 1); AHEAD(turnT, 3) }
  :: d_step { toHolder != NOBODY -> believeH() }
  /* Silence, a stall: anything that beat.ts calls a loss, at any moment. */
  :: d_step { seesH != NOBODY && losses > 0 -> losses--; loseH(); printf("MSC: holder loses the taker\n") }
  /* beat.ts written: let through by a majority, and heard of. */
#ifdef BUG_SOLO_FROM_ANSWER
  :: d_step { registeredH && saysH == ALONE && !written -> written = 1 }
  :: d_step { written -> written = 0; soloLease = SOLO; renew() }
#else
  :: d_step { registeredH && saysH == ALONE && soloLease < SOLO -> soloLease = SOLO; renew() }
#endif
  /* beat-gates.ts openDue; core/vserver's verify only makes it later. */
#ifdef BUG_UNPROVED
  :: d_step { serverH == 2 && gateH == 0 -> gateH = FIRST + LATE; serverH = 3; check() }
#endif
  :: d_step { serverH == 2 && gateH == 0 && GROUND > 0 -> gateH = MIN(GROUND, FIRST) + LATE; serverH = 3; printf("MSC: holder opens\n"); check() }
  /* closeGates. */
  :: d_step { modeH == OUT && serverH > 0 -> gateH = 0; serverH = 0 }
  od
}

active proctype HolderMain() ORDERLY(SETTLED_T) {
end:
  do
  /* beat.ts mandate. What is said for a moment between two mandates need not be said. */
  :: d_step { turnH == 0 -> saysH = modeH; turnH = 1; if :: saysH != ALONE -> soloLease = 0 :: else fi; renew() }
  /* controller.ts partnerSeen: told late, but of everything that puts it out. */
  :: d_step { !goneH && seesH != NOBODY && (aloneH || knownH != seesH || turnH == 5) ->
       if :: aloneH && seesH != ALONE -> knownH = ALONE :: else -> knownH = seesH; AHEAD(turnH, 5) fi;
       aloneH = 0;
       if :: modeH == PAIRED && knownH == ALONE -> outH(); printf("MSC: holder hears that it has lost\n") :: else fi }
  /* pairing.ts pairsWith. */
  :: d_step { !goneH && (modeH == JOINING && (knownH == JOINING || knownH == PAIRED || knownH == KEEPS)) && ANSWERED(turnH, 6) -> SET_H(PAIRED) }
  :: d_step { !goneH && modeH == ALONE && knownH == JOINING && ANSWERED(turnH, 6) -> SET_H(PAIRED) }
  /* pairing.ts grant. */
  :: d_step { !goneH && !grantsH && knownH != NOBODY && seesH != NOBODY && MAY_GRANT(modeH, knownH, turnH, 6) -> grantsH = 1 }
  /* takeover.ts partnerLost. */
  :: d_step { goneH -> goneH = 0; knownH = NOBODY;
       if
       :: modeH == PAIRED && afterAloneH -> outH()
       :: modeH == PAIRED && !afterAloneH -> SET_H(RACING)
       :: else
       fi;
       afterAloneH = 0 }
  /* refusedByCoordinators; diskFenced. */
  :: d_step { (modeH == PAIRED || modeH == ALONE || modeH == JOINING) && !registeredH -> outH() }
  /*
   * The race. PREEMPT is atomic and open to the registered only; who was preempted and has registered again does not win before the other's
   * race has ended (arbitration.pml). Once the taker has taken the virtual server the roles are exchanged: that is not followed.
   */
  :: d_step { modeH == RACING && registeredH && !wonT && !serverT -> registeredT = 0; SET_H(ALONE); serverH = MAX(serverH, 1); printf("MSC: holder wins\n") }
  :: d_step { modeH == RACING -> outH() }
  /* outTick, registerDue, startingTick: the gate is closed, and all that the beat process had to tell has been told. */
  :: d_step { modeH == OUT && serverH == 0 && TOLD_H -> SET_H(JOINING); registeredH = 1 }
  /* Whatever its gate was, nobody closes it. The next life begins as one that has been out. */
  :: d_step { deaths > 0 -> deaths--; bornH = 1; SET_H(OUT); saysH = OUT; turnH = 1; serverH = 0; ackLease = 0; soloLease = 0;
       seesH = NOBODY; knownH = NOBODY; aloneH = 0; goneH = 0; afterAloneH = 0; grantsH = 0; printf("MSC: holder dies\n") }
  /* mayRaceAlone. */
  :: d_step { modeH == JOINING && knownH == NOBODY && !goneH && losses > 0 -> losses--; SET_H(RACING) }
  /* placement.ts orphan. */
  :: d_step { modeH == PAIRED && knownH == PAIRED && !goneH && serverH == 0 -> serverH = 1; printf("MSC: holder starts\n") }
  /* Claim, attach, mount, export: when that is done the mandate is there, and what the beat process told before has been told. */
  :: d_step { serverH == 1 && turnH > 0 && TOLD_H && modeH != OUT -> serverH = 2 }
  /* gateLapsed, reopenGate. */
  :: d_step { serverH == 3 && gateH == 0 && TOLD_H && modeH != OUT -> serverH = 2 }
  od
}

active proctype TakerBeat() ORDERLY(SETTLED_H && SETTLED_T) {
end:
  do
  :: d_step { toTaker != NOBODY -> believeT() }
  /* The beat never arrives. */
  :: d_step { toTaker != NOBODY -> toTaker = NOBODY; ofBornH = 0; grantingH = 0; BACK(turnH, 1); BACK(turnT, 3) }
  :: d_step { toHolder != NOBODY -> toHolder = NOBODY; lease = 0; BACK(turnT, 1); BACK(turnH, 3) }
  :: d_step { sees != NOBODY && losses > 0 -> losses--; loseT(); printf("MSC: taker loses the holder\n") }
  /* beat-send.ts send: what it acknowledges is a lease if it grants, and lastGrantedMs is when that was heard. */
  :: d_step { toHolder == NOBODY ->
       toHolder = SAYS_T;
       if :: granting && MAY_GRANT(modeT, sees, turnT, 5) -> lease = LEASE; granted = MAX(granted, heard) :: else fi;
       AHEAD(turnT, 1); AHEAD(turnH, 3) }
#ifdef BUG_GRANT_ANY_CONTACT
  :: d_step { stray && sees != NOBODY -> granting = 1; stray = 0 }
#endif
  /* Its own ground is at its best: it opens as soon as it may. */
  :: d_step { serverT && wait == 0 && !gateT -> gateT = 1; printf("MSC: taker opens\n"); check() }
  od
}

active proctype TakerMain() ORDERLY(SETTLED_H) {
end:
  do
  :: d_step { sees != NOBODY && !lost && (known != sees || turnT == 5) -> known = sees; AHEAD(turnT, 5);
       if :: modeT == PAIRED && known == ALONE -> outT() :: else fi }
  :: d_step { !lost && seesGranting && modeT == JOINING && (known == JOINING || known == PAIRED) && ANSWERED(turnT, 6) -> SET_T(PAIRED) }
  :: d_step { !lost && seesGranting && modeT == ALONE && known == JOINING && ANSWERED(turnT, 6) -> SET_T(PAIRED) }
  :: d_step { known != NOBODY && sees != NOBODY && !granting && !lost && MAY_GRANT(modeT, known, turnT, 6) -> granting = 1 }
  :: d_step { (modeT == PAIRED || modeT == ALONE || modeT == JOINING) && !registeredT -> outT() }
  /* takeover.ts partnerLost. */
  :: d_step { lost -> lost = 0; known = NOBODY;
       if
       :: modeT == PAIRED -> SET_T(RACING); pairLost = 1; ends = lostEnds
       :: modeT == RACING && pairLost -> ends = lostEnds
#ifdef BUG_GUEST_LOSS
       :: modeT == JOINING || (modeT == RACING && !pairLost) -> pairLost = 1; ends = lostEnds
#endif
       :: else
       fi;
       lostEnds = 0 }
  /* join.ts mayRaceAlone. */
  :: d_step { modeT == JOINING && known == NOBODY && !lost && losses > 0 -> losses--; SET_T(RACING) }
  :: d_step { modeT == RACING && !wonT && registeredT -> registeredH = 0; wonT = 1 }
  :: d_step { modeT == RACING && wonT && TOLD_T -> winT() }
  /* Lost, or the deadline of the race has passed. */
  :: d_step { modeT == RACING && TOLD_T -> outT() }
  /* outTick, registerDue, startingTick. */
  :: d_step { modeT == OUT && TOLD_T -> SET_T(JOINING); registeredT = 1 }
  od
}

active proctype Time() ORDERLY(SETTLED_H && SETTLED_T) {
end:
  do
  :: d_step {
#ifndef BUG_NO_TIMEOUT
       DOWN(gateH);
#endif
       DOWN(ackLease); DOWN(soloLease); DOWN(lease);
       DOWN(heard); DOWN(granted); DOWN(turned); DOWN(ends); DOWN(lostEnds); DOWN(wait) }
  od
}
