// `root` is what makes it safe to build the path from the request. Conditions, ranges and encodings are looked after.
import { file } from 'offloop/handlers';

const root = new URL('./site/', import.meta.url);

export default (req) => {
  if (req.method !== 'GET' && req.method !== 'HEAD') return { status: 405, headers: { allow: 'GET, HEAD' } };
  // A folder is its index.html; what else a path may mean is up to you.
  const path = req.pathInfo.endsWith('/') ? `${req.pathInfo}index.html` : req.pathInfo;
  return { body: file(path, { root, maxAge: 60_000, precompressed: true }) };
};
