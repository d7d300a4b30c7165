'use strict';

/**
 * What Piscina loads first in every thread. CommonJS on purpose: Piscina requires its file, and a thread that is ended
 * while Node is linking a required ES module takes the whole process down ("IsGraphAsync must be used on an instantiated
 * module", Node 20.20). Imported, the same moment is harmless.
 */
module.exports = (start) => import('./entry.js').then((entry) => entry.default(start));
