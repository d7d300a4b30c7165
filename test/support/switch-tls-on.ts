import { switchOn } from './over-tls.js';

switchOn();
