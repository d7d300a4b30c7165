// Notes: GET /notes, POST /notes {"text": ...}, GET and DELETE /notes/1
import { json } from 'offloop/handlers';

// Module state exists once in each worker. server.js starts exactly one, so this is the only copy, and it is gone when
// that worker is. Notes worth keeping belong in a database.
const notes = new Map();
let nextId = 1;

export default async function handler(req) {
  const [, collection, id, ...rest] = req.path.split('/');
  if (collection !== 'notes' || rest.length > 0) return null; // 404

  if (id === undefined) {
    if (req.method === 'GET') return json([...notes.values()]);
    if (req.method === 'POST') return create(await req.json()); // a body that is not JSON is answered 400
    return json({ error: 'method not allowed' }, { status: 405, headers: { allow: 'GET, POST' } });
  }

  const note = notes.get(Number(id));
  if (note === undefined) return json({ error: `there is no note ${id}` }, { status: 404 });
  if (req.method === 'GET') return json(note);
  if (req.method === 'DELETE') {
    notes.delete(note.id);
    return { status: 204 };
  }
  return json({ error: 'method not allowed' }, { status: 405, headers: { allow: 'GET, DELETE' } });
}

function create(value) {
  if (typeof value?.text !== 'string') return json({ error: 'text must be a string' }, { status: 422 });
  const note = { id: nextId++, text: value.text };
  notes.set(note.id, note);
  return json(note, { status: 201, headers: { location: `/notes/${note.id}` } });
}
