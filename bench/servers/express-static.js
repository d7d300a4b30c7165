import express from 'express';
import { ip, ready } from '../lib/serve.js';

const app = express();
app.use(express.static(process.env.BENCH_FOLDER));
const server = app.listen(0, ip, () => ready(server.address().port));
