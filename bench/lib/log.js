/** Progress goes to standard error, so that standard output holds the result and nothing else. */
export function log(text) {
  process.stderr.write(`${text}\n`);
}
