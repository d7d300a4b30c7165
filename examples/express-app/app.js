// An Express app as it would be anywhere else, but for its last line instead of app.listen().
import { scryptSync } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import express from 'express';
import { nodeHandler } from 'offloop/handlers';

const app = express();

app.use('/static', express.static(fileURLToPath(new URL('./static', import.meta.url))));

app.get('/', (_req, res) => res.redirect('/static/index.html'));

// Some 50 ms of CPU. It holds this worker's thread, and nobody else.
app.post('/register', express.urlencoded(), (req, res) => {
  const { name, password } = req.body ?? {};
  if (!name || !password) return res.status(422).send('a name and a password, please\n');
  const key = scryptSync(password, `salt of ${name}`, 32);
  res.cookie('name', name, { httpOnly: true }).json({ name, key: key.toString('hex') });
});

export default nodeHandler(app);
