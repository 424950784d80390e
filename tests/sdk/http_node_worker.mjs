// HTTP handlers on the unmodified Node SDK: as http_python_worker.py, route by route.
//
//     node http_node_worker.mjs URL NAME

import { createHash } from 'node:crypto'
import { http } from '@iii-dev/helpers/http'
import { registerWorker } from 'iii-sdk'

const BLOCK = Buffer.from(Array.from({ length: 65_521 }, (_, i) => (i * i) % 251))
const [url, name] = process.argv.slice(2)
const say = (event, about = {}) => process.stdout.write(`${JSON.stringify({ event, ...about })}\n`)

// A stream that is destroyed without an error calls nobody back, so its `close` is listened to as well.
const write = (stream, piece) =>
  new Promise((resolve, reject) => {
    const closed = () => reject(stream.errored ?? new Error('the stream was closed'))
    if (stream.destroyed) return closed()
    stream.once('close', closed)
    stream.write(piece, (error) => {
      stream.off('close', closed)
      error ? reject(error) : setImmediate(resolve)
    })
  })

const waiting = []
const stepped = () => new Promise((resolve) => waiting.push(resolve))

const handlers = {
  download: async (req, res) => {
    res.stream.on('error', () => {})
    res.status(203)
    res.headers({ 'content-type': 'application/x-tides' })
    const total = Number(req.query_params.total)
    try {
      for (let written = 0; written < total; ) {
        const piece = BLOCK.subarray(0, Math.min(BLOCK.length, total - written))
        await write(res.stream, piece)
        written += piece.length
        say('wrote', { bytes: written })
      }
      res.stream.end()
    } catch (error) {
      say('broke', { error: error.message })
    }
  },
  upload: async (req) => {
    const digest = createHash('sha256')
    let size = 0
    for await (const piece of req.request_body.stream) {
      size += piece.length
      digest.update(piece)
    }
    return { status_code: 200, body: { bytes: size, sha256: digest.digest('hex') } }
  },
  events: async (req, res) => {
    res.headers({ 'content-type': 'text/event-stream' })
    for (let number = 0; number < 3; number++) {
      await write(res.stream, Buffer.from(`id: ${number}\ndata: tide ${number}\n\n`))
      say('sent', { bytes: number })
      await stepped()
    }
    res.stream.end()
  },
  item: async (req) => ({
    status_code: 201,
    headers: { 'x-item': req.path_params.id },
    body: { id: req.path_params.id, query: req.query_params, body: req.body ?? null, method: req.method },
  }),
  fail: async () => {
    throw new TypeError('the ink is dry')
  },
}

const worker = registerWorker(url, { workerName: name, otel: { enabled: false } })
worker.registerFunction(`${name}::step`, async () => waiting.shift()?.())
worker.registerFunction(`${name}::gate`, async ({ request }) =>
  'x-block' in request.headers
    ? { action: 'respond', response: { status_code: 403, body: { error: 'blocked' } } }
    : { action: 'continue' },
)
worker.registerFunction(`${name}::allow`, async ({ query_params }) => query_params.no !== '1')
for (const [method, path, handler, more] of [
  ['GET', 'download', 'download'],
  ['POST', 'upload', 'upload'],
  ['GET', 'events', 'events'],
  ['POST', 'items/:id', 'item'],
  ['GET', 'fail', 'fail'],
  ['GET', 'guarded/:id', 'item', { middleware_function_ids: [`${name}::gate`] }],
  ['GET', 'conditional/:id', 'item', { condition_function_id: `${name}::allow` }],
]) {
  const function_id = `${name}::${path.split('/')[0]}`
  worker.registerFunction(function_id, http(handlers[handler]))
  const config = { api_path: `/${name}/${path}`, http_method: method, ...more }
  worker.registerTrigger({ type: 'http', function_id, config })
}
worker.registerFunction(`${name}::outside`, {
  url: process.env.OUTSIDE,
  headers: { 'x-site': 'brest' },
  auth: { type: 'bearer', token_key: 'SDK_TESTS_TOKEN' },
})

process.stdin.on('end', () => process.exit(0))
process.stdin.resume()
say('ready', { pid: process.pid })
