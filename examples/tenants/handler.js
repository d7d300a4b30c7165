import { json } from 'offloop/handlers';

export default (req) =>
  json({ tenant: req.serverName.split('.', 1)[0], context: req.context, rest: req.pathInfo });
