// A worker on the unmodified Node SDK, to be told by calls what to do: as python_worker.py, function by function.
//
//     node node_worker.mjs URL NAME
//
// What the SDK itself prints on stdout is no JSON object; the tests skip it.

import { createHash } from 'node:crypto'
import { finished } from 'node:stream/promises'
import { setImmediate as aTurn, setTimeout as sleep } from 'node:timers/promises'
import { registerWorker, TriggerAction } from 'iii-sdk'
import { createChannel } from 'iii-sdk/helpers'

const BLOCK = Buffer.from(Array.from({ length: 65_521 }, (_, i) => (i * i) % 251))

const [url, name] = process.argv.slice(2)
const telemetry = process.env.SDK_TESTS_TELEMETRY === 'default'

const say = (event, about = {}) => process.stdout.write(`${JSON.stringify({ event, ...about })}\n`)
const forever = () => new Promise(() => {})
const errorOf = (error) => ({
  code: error.code ?? error.name,
  message: error.message,
  stacktrace: error.stacktrace ?? null,
})

function* pieces(total, chunk) {
  const pattern = Buffer.alloc(chunk + BLOCK.length, BLOCK)
  for (let at = 0; at < total; at += chunk) {
    const start = at % BLOCK.length
    yield pattern.subarray(start, start + Math.min(chunk, total - at))
  }
}

// One write, until the socket has it. A stream that is destroyed without an error, as the SDK does when the engine
// closes the socket, calls nobody back: its `close` is listened to as well.
const writeOne = (stream, piece) =>
  new Promise((resolve, reject) => {
    const closed = () => reject(stream.errored ?? new Error('the stream was closed'))
    if (stream.destroyed) return closed()
    stream.once('close', closed)
    stream.write(piece, (error) => {
      stream.off('close', closed)
      error ? reject(error) : resolve()
    })
  })

async function writeTo(writer, data) {
  let written = 0
  const digest = createHash('sha256')
  const outcome = (error) => ({ bytes: written, sha256: digest.digest('hex'), ...(error && { error: errorOf(error) }) })
  writer.stream.on('error', () => {})
  try {
    for (const text of data.texts ?? []) writer.sendMessage(text)
    for (const piece of pieces(data.total ?? 0, data.chunk ?? 65_536)) {
      await writeOne(writer.stream, piece)
      written += piece.length
      digest.update(piece)
      say('wrote', { bytes: written })
      // Also without a pause the event loop gets its turn: while every write succeeds at once, Node reads nothing.
      await (data.pause_seconds ? sleep(data.pause_seconds * 1000) : aTurn())
    }
    if (data.hold) await forever()
    writer.stream.end()
    await finished(writer.stream)
  } catch (error) {
    return outcome(error)
  }
  return outcome()
}

async function readFrom(reader, data) {
  let read = 0
  let largest = 0
  let error = null
  const texts = []
  const digest = createHash('sha256')
  reader.onMessage((text) => {
    texts.push(text)
    say('heard', { text: text.slice(0, 100) })
  })
  try {
    for await (const piece of reader.stream) {
      read += piece.length
      largest = Math.max(largest, piece.length)
      digest.update(piece)
      say('read', { bytes: read })
      if (data.stop_after != null && read >= data.stop_after) {
        if (data.hold) await forever()
        reader.close() // and take what is on its way: leaving the loop would cut the socket before its Close is out
      }
      if (data.pause_after != null && read >= data.pause_after) {
        data.pause_after = null
        await (data.pause_seconds != null ? sleep(data.pause_seconds * 1000) : resumed.promise)
      }
      if (data.each_seconds) await sleep(data.each_seconds * 1000)
    }
  } catch (caught) {
    error = errorOf(caught)
  }
  return { bytes: read, sha256: digest.digest('hex'), texts, largest, error }
}

const resumed = {}
resumed.promise = new Promise((resolve) => {
  resumed.resolve = resolve
})
const handles = new Map()
const bindings = new Map()
const provider = {
  registerTrigger: async ({ config, metadata, function_id }) => {
    say('offered', { config, metadata: metadata ?? null, target: function_id })
    if (config.refuse) throw new Error(config.refuse)
  },
  unregisterTrigger: async () => say('withdrawn'),
}
const functions = {
  echo: async (data) => data,
  echo_metadata: async (data, metadata) => ({ payload: data, metadata: metadata ?? null }),
  fail: async (data) => {
    throw new TypeError(data.message)
  },
  nothing: async () => undefined, // the SDK then leaves `result` out
  hang: async () => {
    say('hanging')
    await forever()
  },
  note: async (data) => say('noted', { data }),
  note_metadata: async (data, metadata) => say('noted', { data, metadata: metadata ?? null }),
  resume: async () => resumed.resolve(),
  pid: async () => process.pid,
  call: async ({ function_id, payload, metadata, timeout_ms, void: isVoid, queue }) => {
    try {
      const action = isVoid ? TriggerAction.Void() : queue != null ? TriggerAction.Enqueue({ queue }) : undefined
      const result = await worker.trigger({ function_id, payload, metadata, action, timeoutMs: timeout_ms })
      return { result: result ?? null }
    } catch (error) {
      return { error: errorOf(error) }
    }
  },
  write: async (data) => writeTo(data.writer, data),
  read: async (data) => readFrom(data.reader, data),
  create_and_write: async (data) => {
    const channel = await createChannel(worker)
    const payload = { ...data.payload, reader: channel.readerRef }
    const asked = worker.trigger({ function_id: data.function_id, payload })
    const [written, result] = await Promise.all([writeTo(channel.writer, data), asked])
    return { written, result }
  },
  create_and_read: async (data) => {
    const channel = await createChannel(worker)
    const payload = { ...data.payload, writer: channel.writerRef }
    const asked = worker.trigger({ function_id: data.function_id, payload })
    const [read, result] = await Promise.all([readFrom(channel.reader, data), asked])
    return { read, result }
  },
  register: async ({ function_id }) => {
    handles.set(function_id, worker.registerFunction(function_id, functions.echo))
  },
  unregister: async ({ function_id }) => {
    handles.get(function_id).unregister()
    handles.delete(function_id)
  },
  provide: async ({ type }) => {
    worker.registerTriggerType({ id: type, description: 'for the tests' }, provider)
  },
  withdraw: async ({ type }) => {
    worker.unregisterTriggerType({ id: type, description: 'for the tests' })
  },
  bind: async ({ name, type, function_id, config, metadata }) => {
    bindings.set(name, worker.registerTrigger({ type, function_id, config, metadata }))
  },
  unbind: async ({ name }) => {
    bindings.get(name).unregister()
    bindings.delete(name)
  },
}

const worker = registerWorker(url, {
  workerName: name,
  otel: telemetry ? undefined : { enabled: false },
  reconnectionConfig: { initialDelayMs: 50, maxDelayMs: 200 },
})
for (const [id, handler] of Object.entries(functions)) {
  handles.set(`${name}::${id}`, worker.registerFunction(`${name}::${id}`, handler))
}

process.stdin.on('end', () => process.exit(0))
process.stdin.resume()
for (;;) {
  // a call of its own that comes back is the proof that the engine routes to it
  try {
    await worker.trigger({ function_id: `${name}::pid`, payload: null, timeoutMs: 1000 })
    break
  } catch (error) {
    console.error('not yet routed:', error.message)
    await sleep(10)
  }
}
say('ready', { pid: process.pid })
