import { getHeapSnapshot } from 'node:v8';

/**
 * How many objects of these classes there are, garbage left out: on this thread, and in these others together.
 * @param {readonly string[]} classes
 * @param {readonly import('node:worker_threads').Worker[]} threads
 * @returns {Promise<Record<string, number>>}
 */
export async function countObjects(classes, threads) {
  const counts = Object.fromEntries(classes.map((name) => [name, 0]));
  await countIn(getHeapSnapshot(), counts);
  for (const thread of threads) await countIn(await thread.getHeapSnapshot(), counts);
  return counts;
}

async function countIn(stream, counts) {
  const { snapshot, nodes, strings } = JSON.parse(Buffer.concat(await stream.toArray()).toString());
  const { node_fields: fields, node_types: types } = snapshot.meta;
  const [type, name] = [fields.indexOf('type'), fields.indexOf('name')];
  const object = types[type].indexOf('object');
  for (let i = 0; i < nodes.length; i += fields.length) {
    const text = strings[nodes[i + name]];
    if (nodes[i + type] === object && text in counts) counts[text]++;
  }
}
