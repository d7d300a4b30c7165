/** HTTP dates (RFC 9110, 5.6.7). */

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const MONTH = `(${MONTHS.join('|')})`;
const TIME = '(\\d\\d):(\\d\\d):(\\d\\d)';
/** Sun, 06 Nov 1994 08:49:37 GMT */
const IMF = new RegExp(`^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\\d\\d) ${MONTH} (\\d{4}) ${TIME} GMT$`);
/** Sunday, 06-Nov-94 08:49:37 GMT */
const RFC_850 = new RegExp(
  `^(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (\\d\\d)-${MONTH}-(\\d\\d) ${TIME} GMT$`,
);
/** Sun Nov  6 08:49:37 1994 */
const ASCTIME = new RegExp(`^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ${MONTH} ([ \\d]\\d) ${TIME} (\\d{4})$`);

/** Seconds since 1970, or undefined for what is no HTTP date in one of its three forms; a list of dates is none. */
export function parseDate(text: string, now = Date.now()): number | undefined {
  let match = IMF.exec(text);
  if (match !== null) return seconds(match[3], match[2], match[1], match[4], match[5], match[6]);
  match = RFC_850.exec(text);
  if (match !== null) {
    const [, day, month, digits, ...time] = match;
    // The century in which it is not more than 50 years ahead.
    const thisYear = new Date(now).getUTCFullYear();
    let year = thisYear - (thisYear % 100) + Number(digits);
    if (year > thisYear + 50) year -= 100;
    return seconds(String(year), month, day, ...time);
  }
  match = ASCTIME.exec(text);
  return match === null ? undefined : seconds(match[6], match[1], match[2], match[3], match[4], match[5]);
}

function seconds(year = '', month = '', day = '', hour = '', minute = '', second = ''): number | undefined {
  const date = new Date(0);
  date.setUTCFullYear(Number(year), MONTHS.indexOf(month), Number(day));
  // The 31st of February, and leap seconds, which this clock does not have but the grammar allows.
  const possible =
    date.getUTCDate() === Number(day) && Number(hour) < 24 && Number(minute) < 60 && Number(second) <= 60;
  return possible
    ? date.getTime() / 1000 + Number(hour) * 3600 + Number(minute) * 60 + Number(second)
    : undefined;
}

/** As IMF-fixdate. Whole seconds. */
export function formatDate(seconds: number): string {
  return new Date(seconds * 1000).toUTCString();
}
