// No server at all: what it takes Node to start, and to say so.
import { ready } from '../lib/serve.js';

ready(0);
