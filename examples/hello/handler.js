// Runs on a worker thread. Returning nothing would be a 404.
import { text } from 'offloop/handlers';

export default (req) => text(`Hello from ${req.path}\n`);
