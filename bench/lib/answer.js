/**
 * A server that answers wrongly is not fast: its answer is checked before anything is timed.
 * @param {string} url
 * @param {{ body: string, type?: string, post?: import('./wrk.js').Post,
 *   chunked?: boolean }} expected `post`: what is to be sent; `chunked`: no length need be known beforehand
 */
export async function checkAnswer(url, { body, type: wanted = 'text/plain', post, chunked = false }) {
  const response = await fetch(url, {
    ...(post && { method: 'POST', body: post.body.repeat(post.times ?? 1) }),
    headers: { connection: 'close', ...(post && { 'content-type': post.type }) },
  });
  const text = await response.text();
  const type = response.headers.get('content-type');
  const wrong = [];
  if (response.status !== 200) wrong.push(`status ${response.status}`);
  if (!type?.startsWith(wanted)) wrong.push(`content-type ${type}`);
  const length = response.headers.get('content-length');
  if (length !== String(Buffer.byteLength(body)) && !(chunked && length === null))
    wrong.push(`content-length ${length}`);
  if (text !== body)
    wrong.push(`body ${JSON.stringify(text.slice(0, 80))} instead of ${JSON.stringify(body.slice(0, 80))}`);
  if (wrong.length > 0) throw new Error(`wrong answer: ${wrong.join(', ')}`);
}
