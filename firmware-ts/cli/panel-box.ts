/**
 * The soft panel: a front panel drawn with characters, for `dyad panel` and the bench's live view. Pure: a view goes in,
 * lines of text come out.
 */
import type { PanelView } from "../schema/status.ts";

/** Keys of a keyboard that stand for the panel's buttons; as wide as the display. */
const keyHints = "↑ ↓   ⏎ = ok  ⌫ back";

type Light = PanelView["lights"][keyof PanelView["lights"]];

const colours: Readonly<Record<Light, string>> = {
  off: "\x1b[90m",
  green: "\x1b[32m",
  blinkGreen: "\x1b[32;5m",
  amber: "\x1b[33m",
  red: "\x1b[31m",
  blinkRed: "\x1b[31;5m",
};

/** Without colour a light is told by a letter: lower case blinks. */
const letters: Readonly<Record<Light, string>> = {
  off: "○",
  green: "G",
  blinkGreen: "g",
  amber: "A",
  red: "R",
  blinkRed: "r",
};

/**
 * Draws the panel as 6 lines of 39 columns. With `colour` the lights are ANSI-coloured dots and the display is inverse;
 * without, plain characters that a test or a log can hold.
 */
export function panelBox(view: PanelView, colour: boolean): string[] {
  const light = (name: string, value: Light) =>
    `${colour ? `${colours[value]}${value === "off" ? "○" : "●"}\x1b[0m` : letters[value]} ${name}`;
  const display = (text: string) => (colour ? `\x1b[30;42m${text}\x1b[0m` : text);
  const { power, health, partner, activity } = view.lights;
  return [
    "┌──────────────────────┬──────────────┐",
    `│ ${display(view.lines[0])} │ ${light("power   ", power)}   │`,
    `│ ${display(view.lines[1])} │ ${light("health  ", health)}   │`,
    `│                      │ ${light("partner ", partner)}   │`,
    `│ ${keyHints} │ ${light("activity", activity)}   │`,
    "└──────────────────────┴──────────────┘",
  ];
}
