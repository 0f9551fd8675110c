/*
 * The planned move (transfer.pml): what is said in beats, and messages that come late, twice, or after the life that said them: who still
 * takes them, and when they may be forgotten.
 */

/*
 * Who takes what (beat-hear.ts takeMessage): of the believed session, not taken before, in a beat that answers this life of the receiver and
 * shows its sender in the mode and at the epoch in which the newest beat shows it.
 */
#if defined(BUG_TWICE)
#define FRESH(i) true
#define UNREAD(i) (met[i] && met[OTHER(i)])
#elif defined(BUG_OLD_SESSION)
#define FRESH(i) true
#define UNREAD(i) (unread[OTHER(i)] && met[i] && met[OTHER(i)])
#elif defined(BUG_LAST_LIFE)
#define FRESH(i) (met[i] != ended[OTHER(i)] && !taken[OTHER(i)])
#define UNREAD(i) (unread[OTHER(i)] && met[i] && sees[OTHER(i)] != GONE)
#else
#define FRESH(i) (met[i] != ended[OTHER(i)])
#define UNREAD(i) (unread[OTHER(i)] && met[i] && met[OTHER(i)])
#endif

inline forgetLate(i) { late[i] = 0; ended[i] = 0; lateMode[i] = 0; raised[i] = 0; lateOwned[i] = 0; lateNews[i] = 0 }

/* Reasons for which nobody will take the copy any more: */
/* this, or a later one, was taken. */
#if defined(BUG_TWICE) || defined(BUG_OLD_SESSION)
#define WAS_TAKEN(i) skip
#elif defined(BUG_LAST_LIFE)
#define WAS_TAKEN(i) taken[i] = 1
#else
#define WAS_TAKEN(i) forgetLate(i)
#endif
/* The life is over to which it was said. */
#if defined(BUG_TWICE) || defined(BUG_LAST_LIFE)
#define WAS_SAID_TO_THE_LAST(i) skip
#else
#define WAS_SAID_TO_THE_LAST(i) forgetLate(i)
#endif
/* The other has met a later life of its sender, or heard that this one is something else by now. */
#if defined(BUG_TWICE) || defined(BUG_OLD_SESSION)
#define OUTDATED(i) false
#elif defined(BUG_LAST_LIFE) || defined(BUG_EARLIER_TURN)
#define OUTDATED(i) (!met[OTHER(i)] && ended[i])
#else
#define OUTDATED(i) (raised[i] || lateMode[i] != mode[i] || (!met[OTHER(i)] && ended[i]))
#endif

/* The message at the head is not said any more, and a beat with it may still be under way. */
#if defined(BUG_TWICE) || defined(BUG_LAST_LIFE)
#define MAY_BE_TAKEN(i) true
#else
#define MAY_BE_TAKEN(i) (unread[i] && met[i] && mode[OTHER(i)] != GONE)
#endif
inline lateCopy(i) {
  forgetLate(i);
  if :: MAY_BE_TAKEN(i) -> late[i] = head[i]; lateMode[i] = mode[i]; lateOwned[i] = CLAIMED(i); lateNews[i] = 1 :: else fi;
#ifdef BUG_LAST_LIFE
  taken[i] = !unread[i]
#endif
}

/* controller-state.ts sendMessage. */
inline say(i, what) {
  if
  :: sees[i] == GONE -> skip
  :: sees[i] != GONE && head[i] == 0 -> head[i] = what; unread[i] = 1
  :: sees[i] != GONE && head[i] != 0 -> assert(second[i] == 0); second[i] = what
  fi
}

inline dropOutbox(i) {
  if :: head[i] != 0 -> lateCopy(i); head[i] = 0; second[i] = 0; unread[i] = 0 :: else fi
}

/* What a beat shows of the other's main loop, at the moment at which it is sent. */
inline look(i) {
  if :: OUTDATED(OTHER(i)) -> forgetLate(OTHER(i)) :: else fi;
  sees[i] = mode[OTHER(i)]; met[i] = 1; seenOwned[i] = CLAIMED(OTHER(i));
  epochSeen[i] = MAX(epochSeen[i], epoch[OTHER(i)]); rival[i] = (epoch[OTHER(i)] >= epoch[i]);
  heard[OTHER(i)] = 1; answered[i] = heard[i]; lateNews[OTHER(i)] = 0 }

/* What was acknowledged can be taken again only by mistake. */
#if defined(BUG_TWICE) || defined(BUG_LAST_LIFE)
#define FORGOTTEN(i) lateCopy(i)
#else
#define FORGOTTEN(i) forgetLate(i)
#endif
