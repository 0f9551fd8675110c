/** An event, or each of several kinds, without its time: a loop stamps it when it takes it. */
export type Unstamped<E> = E extends { readonly nowMs: number } ? Omit<E, "nowMs"> : never;
