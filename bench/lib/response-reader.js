// One HTTP/1.1 response, bit by bit: just enough to know that every byte of it has come, at next to no cost for each.

const MAX_LINE = 64 * 1024;

export class ResponseReader {
  status = 0;
  headers = '';
  /** Bytes of the body so far, without the framing of its chunks. */
  bytes = 0;
  done = false;

  #line = '';
  #onBody;
  /** What is next: the head, the body up to its length, or a line, the data or the last line of chunks. */
  #next = 'head';
  #left = 0;

  /** @param {(bytes: Buffer) => void} [onBody] what it is given is overwritten later */
  constructor(onBody) {
    this.#onBody = onBody;
  }

  /**
   * Throws when this is no answer.
   * @param {Buffer} data
   */
  push(data) {
    let at = 0;
    while (at < data.length) {
      if (this.done) throw new Error(`${data.length - at} bytes behind the end of the answer`);
      if (this.#next === 'head') at = this.#head(data, at);
      else if (this.#next === 'size' || this.#next === 'behind' || this.#next === 'trailer')
        at = this.#chunkLine(data, at);
      else at = this.#body(data, at);
    }
  }

  #head(data, from) {
    const text = this.#line + data.latin1Slice(from, Math.min(data.length, from + MAX_LINE));
    const end = text.indexOf('\r\n\r\n');
    if (end < 0) {
      if (text.length >= MAX_LINE) throw new Error('a head without an end');
      this.#line = text;
      return data.length;
    }
    const at = from + end + 4 - this.#line.length;
    this.#line = '';
    this.headers = text.slice(0, end);
    this.status = Number(this.headers.slice(9, 12));
    const length = /^content-length: *(\d+)/im.exec(this.headers)?.[1];
    if (length !== undefined) {
      this.#next = 'length';
      this.#left = Number(length);
      this.done = this.#left === 0;
    } else if (/^transfer-encoding: *chunked/im.test(this.headers)) {
      this.#next = 'size';
    } else {
      throw new Error(`an answer of no length: ${this.headers}`);
    }
    return at;
  }

  #body(data, at) {
    const end = Math.min(data.length, at + this.#left);
    this.#left -= end - at;
    this.bytes += end - at;
    this.#onBody?.(data.subarray(at, end));
    if (this.#left === 0) {
      if (this.#next === 'length') this.done = true;
      else this.#next = 'behind';
    }
    return end;
  }

  #chunkLine(data, at) {
    const end = data.indexOf(10, at);
    const stop = end < 0 ? data.length : end + 1;
    this.#line += data.latin1Slice(at, stop);
    if (this.#line.length > MAX_LINE) throw new Error('a line without an end');
    if (end < 0) return stop;
    const line = this.#line.slice(0, -2);
    this.#line = '';
    if (this.#next === 'behind') {
      if (line !== '') throw new Error(`a chunk is longer than it says: ${JSON.stringify(line)}`);
      this.#next = 'size';
    } else if (this.#next === 'trailer') {
      this.done = line === '';
    } else {
      if (!/^[0-9a-f]+$/i.test(line)) throw new Error(`${JSON.stringify(line)} is not the size of a chunk`);
      this.#left = Number.parseInt(line, 16);
      this.#next = this.#left === 0 ? 'trailer' : 'chunk';
    }
    return stop;
  }
}
