/**
 * A set of virtual servers by their numbers, as text: the character at a number is "1" for a member and "0" for any other, and nothing follows the
 * last member. So two sets are equal when their texts are, which is asked after every event, and any number of servers fits.
 */
export type ServerSet = string;

export const noServers: ServerSet = "";

const member = 0x31; // "1"

export function setHas(set: ServerSet, number: number): boolean {
  return set.charCodeAt(number) === member;
}

/** The set of the numbers from 0 below `count` that pass. */
export function setOf(count: number, passes: (number: number) => boolean): ServerSet {
  let set = "";
  let zeros = "";
  for (let number = 0; number < count; number += 1) {
    if (passes(number)) {
      set += `${zeros}1`;
      zeros = "";
    } else zeros += "0";
  }
  return set;
}
