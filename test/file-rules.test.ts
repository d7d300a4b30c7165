/** What is decided about a file without looking at a disk: paths, conditions, ranges, encodings, names, options. */
import { describe, expect, it } from 'vitest';
import { evaluate, isEntityTag, rangeApplies, type Validators } from '../src/handlers/file/conditions.js';
import { formatDate, parseDate } from '../src/handlers/file/dates.js';
import { attachment } from '../src/handlers/file/disposition.js';
import { acceptable, type Encoding } from '../src/handlers/file/encodings.js';
import { pathBelow } from '../src/handlers/file/path.js';
import { MAX_RANGES, parseRange } from '../src/handlers/file/ranges.js';
import { contentTypeOf, FileBody, file } from '../src/handlers/file.js';

describe('a path below a root', () => {
  const below = (path: string): string | number => pathBelow('/srv/www', path, 'allow', false);

  it.each([
    ['/a.txt', '/srv/www/a.txt'],
    ['a.txt', '/srv/www/a.txt'],
    ['./a.txt', '/srv/www/a.txt'],
    ['/a/b/c.txt', '/srv/www/a/b/c.txt'],
    ['/a//b/./c.txt', '/srv/www/a/b/c.txt'],
    ['/a%20b.txt', '/srv/www/a b.txt'],
    ['/a+b.txt', '/srv/www/a+b.txt'],
    ['/%C3%BC.txt', '/srv/www/ü.txt'],
    ['/ü.txt', '/srv/www/ü.txt'],
    ['/a%3Fb%23c', '/srv/www/a?b#c'],
    ['/%2e/a.txt', '/srv/www/a.txt'],
    // Decoded once: the rest is a name.
    ['/%252e%252e%252fa', '/srv/www/%2e%2e%2fa'],
    ['/100%25.txt', '/srv/www/100%.txt'],
    ['/.../a', '/srv/www/.../a'],
    ['/..a/b..', '/srv/www/..a/b..'],
    ['/con', '/srv/www/con'],
    ['/constructor/__proto__', '/srv/www/constructor/__proto__'],
  ])('is what %s says: %s', (path, expected) => {
    expect(below(path)).toBe(expected);
  });

  it.each([
    '',
    '/',
    '.',
    '/.',
    '/a/',
    '/a/.',
    '/a/%2e',
    '/a.txt/',
    '..',
    '/..',
    '/../etc/passwd',
    '../etc/passwd',
    '/a/../b',
    '/a/..',
    '/%2e%2e/etc/passwd',
    '/%2E%2e/etc/passwd',
    '/.%2e/etc/passwd',
    '/%2e./etc/passwd',
    '/..%2fetc/passwd',
    '/%2e%2e%2fetc%2fpasswd',
    '/a%2fb',
    '/a%2Fb',
    '/%2fetc/passwd',
    '//etc/passwd',
    '///etc/passwd',
    '/a%00.txt',
    '/a\0.txt',
    '/a\\b',
    '/..\\..\\etc',
    '/a%5cb',
    '/..%5c..%5cetc',
    '\\\\host\\share',
    '//host/share',
    '/%5c%5chost%5cshare',
    '/C:/windows/win.ini',
    '/c:a',
    'C:\\windows',
    '/C%3a/windows',
    '/a.txt::$DATA',
    '/a.txt:stream',
    '/a.txt%3a%3a$DATA',
    // No UTF-8: overlong, surrogates, half of a character.
    '/%c0%ae%c0%ae/etc/passwd',
    '/%c0%af',
    '/%e0%80%af',
    '/%ed%a0%80',
    '/%ff',
    '/%C3',
    '/%',
    '/%2',
    '/%zz',
    '/%u002e%u002e/',
  ])('is not %j', (path) => {
    expect(below(path)).toBe(404);
  });

  it('may begin at any root', () => {
    expect(pathBelow('/', '/etc/a', 'allow', false)).toBe('/etc/a');
    expect(pathBelow('/srv/', '/a', 'allow', false)).toBe('/srv/a');
    expect(pathBelow('/.hidden/root', '/a', 'deny', false)).toBe('/.hidden/root/a');
  });

  it.each([
    '/.env',
    '/.git/config',
    '/a/.b/c',
    '/%2egit/config',
    '/.well-known/security.txt',
    '/...',
    '/..a',
  ])('with a dot, %s, is as the policy says', (path) => {
    expect(pathBelow('/r', path, 'ignore', false)).toBe(404);
    expect(pathBelow('/r', path, 'deny', false)).toBe(403);
    expect(pathBelow('/r', path, 'allow', false)).toBe(`/r${decodeURIComponent(path)}`);
  });

  it('that leads out is a 404 even where dotfiles are forbidden', () => {
    for (const path of ['/..', '/.git/../a', '/../.git', '/.git/', '/.a/%2e%2e'])
      expect(pathBelow('/r', path, 'deny', false)).toBe(404);
  });

  it.each([
    '/con',
    '/NUL.txt',
    '/a/aux',
    '/com1',
    '/LPT9.log',
    '/secret.txt.',
    '/secret.txt%20',
    '/a./b',
    '/CONIN$',
  ])('is on Windows not %s', (path) => {
    expect(pathBelow('r', path, 'allow', true)).toBe(404);
    expect(pathBelow('r', path, 'allow', false)).not.toBe(404);
  });
});

describe('a date', () => {
  const SECONDS = 784_111_777;

  it('comes in three forms (5.6.7)', () => {
    expect(parseDate('Sun, 06 Nov 1994 08:49:37 GMT')).toBe(SECONDS);
    expect(parseDate('Sunday, 06-Nov-94 08:49:37 GMT')).toBe(SECONDS);
    expect(parseDate('Sun Nov  6 08:49:37 1994')).toBe(SECONDS);
    expect(parseDate('Wed Nov 16 08:49:37 1994')).toBe(SECONDS + 10 * 86_400);
    expect(formatDate(SECONDS)).toBe('Sun, 06 Nov 1994 08:49:37 GMT');
  });

  it('with two digits for the year is at most 50 years ahead (5.6.7)', () => {
    const now = Date.UTC(2026, 5, 1);
    const year = (digits: string): number =>
      new Date((parseDate(`Sunday, 06-Nov-${digits} 08:49:37 GMT`, now) as number) * 1000).getUTCFullYear();
    expect([year('26'), year('76'), year('77'), year('99'), year('00')]).toEqual([
      2026, 2076, 1977, 1999, 2000,
    ]);
  });

  it('may lie before 1970, on the 29th of February, and in a leap second', () => {
    expect(parseDate('Thu, 01 Jan 1970 00:00:00 GMT')).toBe(0);
    expect(parseDate('Wed, 31 Dec 1969 23:59:59 GMT')).toBe(-1);
    expect(parseDate('Thu, 29 Feb 2024 00:00:00 GMT')).toBe(Date.UTC(2024, 1, 29) / 1000);
    expect(parseDate('Sat, 31 Dec 2016 23:59:60 GMT')).toBe(Date.UTC(2017, 0, 1) / 1000);
  });

  it.each([
    '',
    '0',
    '1994-11-06T08:49:37Z',
    'Sun, 6 Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 08:49:37',
    'Sun, 06 Nov 1994 08:49:37 +0000',
    'sun, 06 nov 1994 08:49:37 gmt',
    'Sun, 06 Nov 1994 24:00:00 GMT',
    'Sun, 06 Nov 1994 08:60:00 GMT',
    'Sun, 31 Feb 1994 08:49:37 GMT',
    'Sun, 00 Nov 1994 08:49:37 GMT',
    ' Sun, 06 Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT',
    '9'.repeat(5000),
  ])('is not %j', (text) => {
    expect(parseDate(text)).toBeUndefined();
  });
});

describe('the conditions of a request', () => {
  const LATER = 'Sun, 06 Nov 1994 08:49:38 GMT';
  const SAME = 'Sun, 06 Nov 1994 08:49:37 GMT';
  const BEFORE = 'Sun, 06 Nov 1994 08:49:36 GMT';
  const strong: Validators = { etag: '"a"', modified: 784_111_777, settled: true };
  const weak: Validators = { ...strong, etag: 'W/"a"' };
  const none: Validators = { etag: undefined, modified: undefined, settled: true };

  it.each<[section: string, headers: Record<string, string>, validators: Validators, status: number]>([
    ['13.2.2 no condition', {}, strong, 200],
    // If-Match: strong comparison.
    ['13.1.1 *', { 'if-match': '*' }, strong, 200],
    ['13.1.1 * without a tag', { 'if-match': '*' }, none, 200],
    ['13.1.1 the tag', { 'if-match': '"a"' }, strong, 200],
    ['13.1.1 in a list', { 'if-match': '"b", "a"' }, strong, 200],
    ['13.1.1 another tag', { 'if-match': '"b"' }, strong, 412],
    ['13.1.1 its weak form', { 'if-match': 'W/"a"' }, strong, 412],
    ['13.1.1 weak itself', { 'if-match': '"a"' }, weak, 412],
    ['13.1.1 both weak', { 'if-match': 'W/"a"' }, weak, 412],
    ['13.1.1 without a tag', { 'if-match': '"a"' }, none, 412],
    ['13.1.1 without quotes', { 'if-match': 'a' }, strong, 412],
    ['13.1.1 empty', { 'if-match': '' }, strong, 412],
    ['13.1.1 * among others is none', { 'if-match': '"b", *' }, strong, 412],
    // If-None-Match: weak comparison.
    ['13.1.2 *', { 'if-none-match': '*' }, strong, 304],
    ['13.1.2 * without a tag', { 'if-none-match': '*' }, none, 304],
    ['13.1.2 the tag', { 'if-none-match': '"a"' }, strong, 304],
    ['13.1.2 its weak form', { 'if-none-match': 'W/"a"' }, strong, 304],
    ['13.1.2 weak itself', { 'if-none-match': '"a"' }, weak, 304],
    ['13.1.2 both weak', { 'if-none-match': 'W/"a"' }, weak, 304],
    ['13.1.2 w/ is no W/', { 'if-none-match': 'w/"a"' }, strong, 200],
    ['13.1.2 in a list', { 'if-none-match': '"x", W/"y" ,\t"a"' }, strong, 304],
    ['13.1.2 in a list with empty elements', { 'if-none-match': ', ,"x",, "a",' }, strong, 304],
    ['13.1.2 a list without it', { 'if-none-match': '"x", "aa"' }, strong, 200],
    ['8.8.3 a comma within a tag', { 'if-none-match': '"x,"a"' }, strong, 200],
    ['13.1.2 behind a broken one', { 'if-none-match': 'x, "a"' }, strong, 200],
    ['13.1.2 without quotes', { 'if-none-match': 'a' }, strong, 200],
    ['13.1.2 empty', { 'if-none-match': '' }, strong, 200],
    ['13.1.2 without a tag', { 'if-none-match': '"a"' }, none, 200],
    ['13.1.2 case matters', { 'if-none-match': '"A"' }, strong, 200],
    // If-Modified-Since.
    ['13.1.3 later', { 'if-modified-since': LATER }, strong, 304],
    ['13.1.3 the same second', { 'if-modified-since': SAME }, strong, 304],
    ['13.1.3 before', { 'if-modified-since': BEFORE }, strong, 200],
    ['13.1.3 RFC 850', { 'if-modified-since': 'Sunday, 06-Nov-94 08:49:37 GMT' }, strong, 304],
    ['13.1.3 asctime', { 'if-modified-since': 'Sun Nov  6 08:49:37 1994' }, strong, 304],
    ['13.1.3 no date', { 'if-modified-since': 'yesterday' }, strong, 200],
    ['13.1.3 two dates', { 'if-modified-since': `${LATER}, ${LATER}` }, strong, 200],
    ['13.1.3 nothing to compare it with', { 'if-modified-since': LATER }, none, 200],
    ['13.1.3 not beside If-None-Match', { 'if-modified-since': LATER, 'if-none-match': '"b"' }, strong, 200],
    ['13.1.3 not beside If-None-Match', { 'if-modified-since': BEFORE, 'if-none-match': '"a"' }, strong, 304],
    // If-Unmodified-Since.
    ['13.1.4 later', { 'if-unmodified-since': LATER }, strong, 200],
    ['13.1.4 the same second', { 'if-unmodified-since': SAME }, strong, 200],
    ['13.1.4 before', { 'if-unmodified-since': BEFORE }, strong, 412],
    ['13.1.4 no date', { 'if-unmodified-since': 'yesterday' }, strong, 200],
    ['13.1.4 nothing to compare it with', { 'if-unmodified-since': BEFORE }, none, 200],
    ['13.1.4 not beside If-Match', { 'if-unmodified-since': BEFORE, 'if-match': '"a"' }, strong, 200],
    ['13.1.4 not beside If-Match', { 'if-unmodified-since': LATER, 'if-match': '"b"' }, strong, 412],
    // Order.
    ['13.2.2 1 before 3', { 'if-match': '"b"', 'if-none-match': '"a"' }, strong, 412],
    ['13.2.2 1, then 3', { 'if-match': '"a"', 'if-none-match': '"a"' }, strong, 304],
    ['13.2.2 2 before 3', { 'if-unmodified-since': BEFORE, 'if-none-match': '"a"' }, strong, 412],
    ['13.2.2 2, then 3', { 'if-unmodified-since': SAME, 'if-none-match': '"a"' }, strong, 304],
    ['13.2.2 1, then 4', { 'if-match': '"a"', 'if-modified-since': SAME }, strong, 304],
    ['13.2.2 2, then 4', { 'if-unmodified-since': SAME, 'if-modified-since': SAME }, strong, 304],
  ])('are met as RFC 9110 says: %s: %j', (_, headers, validators, status) => {
    expect(evaluate(headers, validators)).toBe(status);
  });

  it.each<[section: string, ifRange: string | undefined, validators: Validators, applies: boolean]>([
    ['13.1.5 none', undefined, strong, true],
    ['13.1.5 the tag', '"a"', strong, true],
    ['13.1.5 another tag', '"b"', strong, false],
    ['13.1.5 its weak form', 'W/"a"', strong, false],
    ['13.1.5 weak itself', '"a"', weak, false],
    ['13.1.5 both weak', 'W/"a"', weak, false],
    ['13.1.5 no list', '"a", "b"', strong, false],
    ['13.1.5 without a tag', '"a"', none, false],
    ['13.1.5 no *', '*', strong, false],
    ['13.1.5 the date', SAME, strong, true],
    ['13.1.5 the date, in another form', 'Sun Nov  6 08:49:37 1994', strong, true],
    ['13.1.5 a later date', LATER, strong, false],
    ['13.1.5 an earlier date', BEFORE, strong, false],
    ['8.8.2.2 a date that may change yet', SAME, { ...strong, settled: false }, false],
    ['13.1.5 nothing to compare it with', SAME, none, false],
    ['13.1.5 no date', 'yesterday', strong, false],
    ['13.1.5 no date', 'yesterday', none, false],
    ['13.1.5 empty', '', strong, false],
  ])('let a range count as RFC 9110 says: %s: %j', (_, ifRange, validators, applies) => {
    expect(rangeApplies({ 'if-range': ifRange }, validators)).toBe(applies);
  });

  it('are looked at once, whatever they are made of', () => {
    // What reads one of these again and again does not come to an end within the time of a test.
    for (const text of ['"b', ',', ' ,', 'W/', '"', 'gzip;q=0.1 ', '0-', '-'].map((part) =>
      part.repeat(30_000),
    )) {
      expect(evaluate({ 'if-none-match': text, 'if-modified-since': text }, strong)).toBe(200);
      expect(evaluate({ 'if-match': text }, strong)).not.toBe(304);
      expect(rangeApplies({ 'if-range': text }, strong)).toBe(false);
      expect(parseRange(`bytes=${text}`, 100)).toBeNull();
      expect(acceptable(text, ['br'])).toEqual([]);
    }
  });

  it('compare tags as RFC 9110 writes them', () => {
    for (const tag of ['""', '"a"', 'W/"a"', '"!#~ÿ"']) expect(isEntityTag(tag)).toBe(true);
    for (const tag of ['', 'a', '"a', 'w/"a"', 'W/a', '"a b"', '"a"b"', '"\n"', '"€"', '*', '"a","b"'])
      expect(isEntityTag(tag)).toBe(false);
  });
});

describe('a Range', () => {
  const ranges = (header: string, size = 1000): [number, number][] | null =>
    parseRange(header, size)?.map(({ from, to }) => [from, to]) ?? null;

  it.each<[section: string, header: string, size: number, spans: [number, number][]]>([
    ['14.1.2 both ends', 'bytes=0-499', 1000, [[0, 500]]],
    ['14.1.2 one byte', 'bytes=999-999', 1000, [[999, 1000]]],
    ['14.1.2 open', 'bytes=500-', 1000, [[500, 1000]]],
    ['14.1.2 beyond the end', 'bytes=500-5000', 1000, [[500, 1000]]],
    ['14.1.2 suffix', 'bytes=-200', 1000, [[800, 1000]]],
    ['14.1.2 suffix longer than all', 'bytes=-2000', 1000, [[0, 1000]]],
    ['14.1.2 all', 'bytes=0-', 1000, [[0, 1000]]],
    ['14.1.2 very large numbers', `bytes=5-${'9'.repeat(40)}`, 1000, [[5, 1000]]],
    ['14.1.2 very large suffix', `bytes=-${'9'.repeat(400)}`, 1000, [[0, 1000]]],
    ['14.1 case of the unit', 'Bytes=0-1', 1000, [[0, 2]]],
    [
      '14.1.2 several',
      'bytes=0-0,-1',
      1000,
      [
        [0, 1],
        [999, 1000],
      ],
    ],
    [
      '14.1.2 several, with blanks',
      'bytes=0-0, 5-6 ,\t9-9',
      1000,
      [
        [0, 1],
        [5, 7],
        [9, 10],
      ],
    ],
    [
      '5.6.1.2 empty elements',
      'bytes=,0-0,,5-6,',
      1000,
      [
        [0, 1],
        [5, 7],
      ],
    ],
    [
      '15.3.7.2 in the order asked for',
      'bytes=500-599,0-99',
      1000,
      [
        [500, 600],
        [0, 100],
      ],
    ],
    ['15.3.7.2 overlapping', 'bytes=0-100,50-200', 1000, [[0, 201]]],
    ['15.3.7.2 one within another', 'bytes=0-100,50-60', 1000, [[0, 101]]],
    ['15.3.7.2 the same twice', 'bytes=5-9,5-9', 1000, [[5, 10]]],
    [
      '15.3.7.2 put together at the first place',
      'bytes=50-200,500-600,0-100',
      1000,
      [
        [0, 201],
        [500, 601],
      ],
    ],
    [
      '15.3.7.2 touching ones stay apart',
      'bytes=0-4,5-9',
      1000,
      [
        [0, 5],
        [5, 10],
      ],
    ],
    ['14.2 some that are not there', 'bytes=5000-,0-0', 1000, [[0, 1]]],
    ['14.1.2 a suffix of nothing among others', 'bytes=-0,0-0', 1000, [[0, 1]]],
  ])('is read as RFC 9110 says: %s: %s', (_, header, size, spans) => {
    expect(ranges(header, size)).toEqual(spans);
  });

  it.each([
    ['bytes=1000-', 1000],
    ['bytes=1000-1001', 1000],
    ['bytes=5000-6000, 7000-', 1000],
    ['bytes=-0', 1000],
    ['bytes=0-', 0],
    ['bytes=0-0', 0],
    [`bytes=${'9'.repeat(400)}-`, 1000],
  ])('that is not there leaves nothing (15.5.17): %s of %i bytes', (header, size) => {
    expect(ranges(header, size)).toEqual([]);
  });

  it.each([
    '',
    'bytes',
    'bytes=',
    'bytes=,',
    'bytes=-',
    'bytes=a-b',
    'bytes=1',
    'bytes=5-4',
    'bytes=0-1,5-4',
    'bytes=--5',
    'bytes=1-2-3',
    'bytes=0x0-5',
    'bytes=+1-2',
    'bytes=1.0-2',
    'bytes= =0-1',
    'bytes:0-1',
    'bytes 0-1',
    'bytes =0-1',
    'items=0-1',
    'seconds=0-1',
    'bytes=0-1;q=1',
    '0-1',
  ])('that is none is as if it were not there (14.2): %j', (header) => {
    expect(ranges(header)).toBeNull();
  });

  it('of an empty file that asks for its end is the whole of it', () => {
    expect(ranges('bytes=-5', 0)).toBeNull();
  });

  it(`of more than ${MAX_RANGES} parts is as if it were not there (17.15)`, () => {
    const many = (n: number): string =>
      `bytes=${Array.from({ length: n }, (_, i) => `${i * 3}-${i * 3}`).join(',')}`;
    expect(ranges(many(MAX_RANGES))).toHaveLength(MAX_RANGES);
    expect(ranges(many(MAX_RANGES + 1))).toBeNull();
    expect(ranges(many(1000))).toBeNull();
  });
});

describe('an Accept-Encoding', () => {
  const all: Encoding[] = ['br', 'zstd', 'gzip'];

  it.each<[section: string, header: string | undefined, chosen: Encoding[]]>([
    ['12.5.3 none', undefined, []],
    ['12.5.3 empty', '', []],
    ['12.5.3 one', 'gzip', ['gzip']],
    ['12.5.3 unknown ones', 'deflate, compress, dcb', []],
    ['12.5.3 of a browser', 'gzip, deflate, br, zstd', ['br', 'zstd', 'gzip']],
    ['12.4.2 weights', 'br;q=0.5, gzip;q=0.8, zstd;q=0.1', ['gzip', 'br', 'zstd']],
    ['12.4.2 zero is never', 'br;q=0, gzip', ['gzip']],
    ['12.4.2 zero is never', 'br;q=0.000, gzip;q=0.001', ['gzip']],
    ['12.4.2 blanks', ' br ; q=0.2 ,\tgzip ;\tq=0.3', ['gzip', 'br']],
    ['12.4.2 Q', 'br;Q=0.2, gzip', ['gzip', 'br']],
    ['12.5.3 *', '*', ['br', 'zstd', 'gzip']],
    ['12.5.3 * is for the others', 'gzip;q=0.5, *;q=0.7', ['br', 'zstd', 'gzip']],
    ['12.5.3 * is never', 'gzip, *;q=0', ['gzip']],
    ['12.5.3 * is never', '*;q=0', []],
    ['12.5.3 identity', 'identity', []],
    ['12.5.3 identity is better', 'gzip;q=0.5, identity', []],
    ['12.5.3 identity is no better', 'gzip;q=0.5, identity;q=0.5', ['gzip']],
    ['12.5.3 identity is worse', 'identity;q=0.5, gzip;q=0.8, br;q=0.3', ['gzip']],
    ['12.5.3 identity is never', 'identity;q=0, gzip;q=0.1', ['gzip']],
    ['8.4.1 case', 'GZIP, Br', ['br', 'gzip']],
    ['8.4.1.3 x-gzip', 'x-gzip', ['gzip']],
    ['12.4.2 broken weights do not count', 'br;q=2, gzip;q=-1, zstd;q=0.1', ['zstd']],
    ['12.4.2 broken weights do not count', 'br;q=, gzip;q=0.1234, zstd;level=1', []],
    ['12.5.3 twice', 'gzip;q=0, gzip;q=0.5', ['gzip']],
  ])('is read as RFC 9110 says: %s: %j', (_, header, chosen) => {
    expect(acceptable(header, all)).toEqual(chosen);
  });

  it('leaves the choice between equals to the server', () => {
    expect(acceptable('gzip, br, zstd', ['gzip', 'br'])).toEqual(['gzip', 'br']);
    expect(acceptable('gzip, br', [])).toEqual([]);
  });
});

describe('the name of a download', () => {
  it.each([
    ['plain.txt', 'attachment; filename="plain.txt"'],
    ['with blank (1).txt', 'attachment; filename="with blank (1).txt"'],
    ['quo"te\\.txt', `attachment; filename="quo\\"te\\\\.txt"; filename*=UTF-8''quo%22te%5C.txt`],
    ['grüße.txt', `attachment; filename="gr?e.txt"; filename*=UTF-8''gr%C3%BC%C3%9Fe.txt`],
    ['€ rates.csv', `attachment; filename="? rates.csv"; filename*=UTF-8''%E2%82%AC%20rates.csv`],
    [
      "it's (ü)*!.txt",
      `attachment; filename="it's (?)*!.txt"; filename*=UTF-8''it%27s%20%28%C3%BC%29%2A!.txt`,
    ],
    ['100%41.txt', `attachment; filename="100_41.txt"; filename*=UTF-8''100%2541.txt`],
    ['100%.txt', 'attachment; filename="100%.txt"'],
    ['a\r\nx: y.txt', `attachment; filename="a?x: y.txt"; filename*=UTF-8''a%0D%0Ax%3A%20y.txt`],
    ['lone \ud800', `attachment; filename="lone ?"; filename*=UTF-8''lone%20%EF%BF%BD`],
    ['𝄞', `attachment; filename="?"; filename*=UTF-8''%F0%9D%84%9E`],
  ])('%j is written as RFC 6266 and RFC 8187 say', (name, expected) => {
    expect(attachment(name)).toBe(expected);
  });
});

describe('the type of a file', () => {
  it.each([
    ['a.html', 'text/html; charset=utf-8'],
    ['a.JS', 'text/javascript; charset=utf-8'],
    ['a.json', 'application/json; charset=utf-8'],
    ['a.png', 'image/png'],
    ['a.svg', 'image/svg+xml'],
    ['a.woff2', 'font/woff2'],
    ['a.tar.gz', 'application/gzip'],
    ['a.unknown', 'application/octet-stream'],
    ['a', 'application/octet-stream'],
    ['html', 'application/octet-stream'],
    ['/conf.d/html', 'application/octet-stream'],
    ['.html', 'application/octet-stream'],
    ['a.', 'application/octet-stream'],
    ['a.constructor', 'application/octet-stream'],
    ['a.__proto__', 'application/octet-stream'],
    ['', 'application/octet-stream'],
  ])('%j is %s', (name, type) => {
    expect(contentTypeOf(name)).toBe(type);
  });
});

describe('file()', () => {
  it('takes paths and file URLs', () => {
    expect(file('/a/b.txt')).toMatchObject({ path: '/a/b.txt', root: undefined });
    expect(file(new URL('file:///a/b%20c.txt')).path).toBe('/a/b c.txt');
    expect(file('x', { root: '/srv/' })).toMatchObject({ path: 'x', root: '/srv' });
    expect(file('x', { root: new URL('file:///srv/w%20w/') }).root).toBe('/srv/w w');
    expect(file('x', { root: 'public' }).root).toBe(`${process.cwd()}/public`);
    expect(file('x')).toBeInstanceOf(FileBody);
  });

  it.each<[unknown, unknown, string]>([
    [1, {}, 'path is 1 (number)'],
    [null, {}, 'path is null'],
    [undefined, {}, 'path is undefined'],
    [new URL('http://a/b'), {}, 'path is'],
    [new URL('file:///a'), { root: '/srv' }, 'path is'],
    [{ path: 'a' }, { root: '/srv' }, 'path is {"path":"a"} (object)'],
    ['a', null, 'an object of options'],
    ['a', { rot: '/srv' }, 'there is no option rot (its value was "/srv" (string))'],
    ['a', { root: '' }, 'root is "" (string)'],
    ['a', { root: 'a\0b' }, 'root is'],
    ['a', { root: 5 }, 'root is 5 (number)'],
    ['a', { root: new URL('http://a/') }, 'root is'],
    ['a', { root: '/srv', dotfiles: true }, 'dotfiles is true (boolean)'],
    ['a', { root: '/srv', dotfiles: 'hide' }, "allowed: 'ignore', 'allow' or 'deny'"],
    ['a', { dotfiles: 'allow' }, 'dotfiles is "allow" (string); allowed: nothing without root'],
    ['a', { contentType: 1 }, 'contentType is 1 (number)'],
    ['a', { contentType: '' }, 'contentType is "" (string)'],
    ['a', { contentType: 'a/b\r\nc: d' }, 'contentType is'],
    ['a', { headers: [] }, 'headers is [] (array)'],
    ['a', { headers: 'x: y' }, 'headers is "x: y" (string)'],
    ['a', { maxAge: '1d' }, 'maxAge is "1d" (string)'],
    ['a', { maxAge: -1 }, 'maxAge is -1 (number)'],
    ['a', { maxAge: Number.NaN }, 'maxAge is NaN (number)'],
    ['a', { maxAge: Number.POSITIVE_INFINITY }, 'maxAge is Infinity (number)'],
    ['a', { maxAge: 1, immutable: 1 }, 'immutable is 1 (number)'],
    ['a', { immutable: true }, 'immutable is true (boolean); allowed: nothing without maxAge'],
    ['a', { etag: 'abc' }, 'etag is "abc" (string)'],
    ['a', { etag: '"a b"' }, 'etag is'],
    ['a', { etag: 1 }, 'etag is 1 (number)'],
    ['a', { acceptRanges: 'none' }, 'acceptRanges is "none" (string)'],
    ['a', { precompressed: 'br' }, 'precompressed is "br" (string)'],
    ['a', { precompressed: ['deflate'] }, "allowed: true, false, or an array of 'br', 'gzip', 'zstd'"],
    ['a', { precompressed: ['br', 'constructor'] }, 'precompressed is'],
    ['a', { download: '' }, 'download is "" (string)'],
    ['a', { download: 'a/b.txt' }, 'download is "a/b.txt" (string)'],
    ['a', { download: 'a\nb' }, 'download is'],
    ['a', { download: 1 }, 'download is 1 (number)'],
  ])('refuses %j with %j', (path, options, message) => {
    const call = (): unknown => (file as (path: unknown, options: unknown) => unknown)(path, options);
    expect(call).toThrow(TypeError);
    expect(call).toThrow(
      expect.objectContaining({ code: 'OFFLOOP_BAD_OPTION', message: expect.stringContaining(message) }),
    );
  });
});
