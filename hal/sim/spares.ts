/** Addresses and disks that no virtual server has at first: changes give them to one, and take them away again. */

/** What a plan may draw from. */
export const sparesOfPlans = 4;

export const spareAddress = (index: number) => `10.0.0.${150 + index}`;
export const spareDisk = (index: number) => `s${index + 1}`;

/** A disk that no shelf has. */
export const noDisk = "s99";
