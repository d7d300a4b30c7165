import { compose } from '../../dist/handlers/index.js';
import { jsonBody, jsonResponse } from '../../dist/middleware/index.js';

/** Parses what it gets and writes it again. */
export default compose(jsonBody(), jsonResponse(), (req) => ({ body: req.jsonBody }));
