import express from 'express';
import { ip, ready } from '../lib/serve.js';

const app = express();
app.use(express.json());
app.post('/', (req, res) => {
  res.json(req.body);
});
const server = app.listen(0, ip, () => ready(server.address().port));
