/** The partner as a beat shows it. */
import type { Beat } from "../schema/beat.ts";
import type { PartnerView } from "./beat-types.ts";

/** What a beat says of its sender, in a contact; `answersTurn`: of which of our turns it knows. */
export function viewOf(beat: Beat, contact: number, answersTurn: number): PartnerView {
  const { session, mode, epoch, configuration, owned, serving, granting, dataLinkDown } = beat;
  return {
    contact,
    session,
    answersTurn,
    mode,
    epoch,
    configuration,
    owned,
    serving,
    granting,
    dataLinkDown,
  };
}

/** Whether two views show the same; asked with every newer beat. */
export function sameView(one: PartnerView, other: PartnerView): boolean {
  return (
    one.contact === other.contact &&
    one.session === other.session &&
    one.answersTurn === other.answersTurn &&
    one.mode === other.mode &&
    one.epoch === other.epoch &&
    one.configuration === other.configuration &&
    one.owned === other.owned &&
    one.serving === other.serving &&
    one.granting === other.granting &&
    one.dataLinkDown === other.dataLinkDown
  );
}
