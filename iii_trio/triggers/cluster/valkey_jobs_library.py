"""Functions for the jobs of a mesh that run inside Valkey. Each one is atomic, and checks the fencing number of its caller.

The keys are `iii-trio-1:{MESH}:queues:` and one of these: `owner` (a hash: the node, the number of its lease, and the
number of its last write), `lease` (exists as long as the lease), `order` (the keys of the jobs, sorted), `records` and
`payloads` (hashes, by key), `subscribers` and `lanes` (hashes), and `damaged` (a hash of records that were set aside).
"""

from typing import Final

LIBRARY: Final = "iii_trio_jobs_1"
"""The name of the functions, with the version of the layout, so that two versions do not replace each other's."""
_PAGE_BYTES: Final = 1_000_000
_PAGE_JOBS: Final = 500

SOURCE: Final = (
    f"#!lua name={LIBRARY}\n"
    f"local PAGE_BYTES, PAGE_JOBS = {_PAGE_BYTES}, {_PAGE_JOBS}\n"
    + """
local function check(base, number)
  if server.call('HGET', base .. 'owner', 'number') ~= number then return server.error_reply('FENCED') end
end

-- node, number or 0, lease in ms, whether to take the lease if it is free
local function claim(keys, args)
  local base, node, number = keys[1], args[1], args[2]
  local owner = server.call('HMGET', base .. 'owner', 'node', 'number')
  local holder, last = owner[1] or '', owner[2] or '0'
  -- It may have run out. As long as no other lease has begun, nothing has been taken away.
  if number ~= '0' and last == number then
    server.call('SET', base .. 'lease', number, 'PX', args[3])
    return { holder, last }
  end
  if server.call('EXISTS', base .. 'lease') == 1 and holder ~= node then return { holder, last } end
  if args[4] ~= '1' then return { '', '0' } end
  -- The clock keeps the numbers rising also where a store has lost everything.
  local time = server.call('TIME')
  local clock = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local new = string.format('%.0f', math.max(tonumber(last) + 1, clock))
  server.call('HSET', base .. 'owner', 'node', node, 'number', new, 'serial', '0')
  server.call('SET', base .. 'lease', new, 'PX', args[3])
  return { node, new }
end

-- number
local function release(keys, args)
  local base, number = keys[1], args[1]
  local wrong = check(base, number)
  if wrong then return 'OK' end
  -- A write that is on its way still must not arrive after this.
  server.call('HSET', base .. 'owner', 'node', '', 'number', string.format('%.0f', tonumber(number) + 1))
  server.call('DEL', base .. 'lease')
  return 'OK'
end

-- number, serial, and four values for each step: a letter, a key, a value, another value
local function write(keys, args)
  local base = keys[1]
  local wrong = check(base, args[1])
  if wrong then return wrong end
  if tonumber(args[2]) <= tonumber(server.call('HGET', base .. 'owner', 'serial')) then return 0 end
  server.call('HSET', base .. 'owner', 'serial', args[2])
  for i = 3, #args, 4 do
    local step, key, value = args[i], args[i + 1], args[i + 2]
    if step == 'P' then
      server.call('HSET', base .. 'records', key, value)
      server.call('HSET', base .. 'payloads', key, args[i + 3])
      server.call('ZADD', base .. 'order', key, key)
    elseif step == 'U' then
      if server.call('HEXISTS', base .. 'records', key) == 1 then server.call('HSET', base .. 'records', key, value) end
    elseif step == 'R' or step == 'D' then
      if step == 'D' then
        server.call('HSET', base .. 'damaged', key .. ' problem', value)
        local record = server.call('HGET', base .. 'records', key)
        if record then server.call('HSET', base .. 'damaged', key .. ' record', record) end
        local payload = server.call('HGET', base .. 'payloads', key)
        if payload then server.call('HSET', base .. 'damaged', key .. ' payload', payload) end
      end
      server.call('HDEL', base .. 'records', key)
      server.call('HDEL', base .. 'payloads', key)
      server.call('ZREM', base .. 'order', key)
    elseif step == 'S' then server.call('HSET', base .. 'subscribers', key, value)
    elseif step == 'F' then server.call('HDEL', base .. 'subscribers', key)
    elseif step == 'L' then server.call('HSET', base .. 'lanes', key, value)
    elseif step == 'G' then server.call('HDEL', base .. 'lanes', key)
    end
  end
  return 1
end

-- number, the key behind which to begin
local function page(keys, args)
  local base = keys[1]
  local wrong = check(base, args[1])
  if wrong then return wrong end
  local found, size = {}, 0
  for _, key in ipairs(server.call('ZRANGEBYSCORE', base .. 'order', '(' .. args[2], '+inf', 'LIMIT', 0, PAGE_JOBS)) do
    if size > PAGE_BYTES then break end
    local record = server.call('HGET', base .. 'records', key) or ''
    local payload = server.call('HGET', base .. 'payloads', key) or ''
    found[#found + 1] = key
    found[#found + 1] = record
    found[#found + 1] = payload
    size = size + #record + #payload
  end
  return found
end

-- number
local function tables(keys, args)
  local base = keys[1]
  local wrong = check(base, args[1])
  if wrong then return wrong end
  return { server.call('HGETALL', base .. 'subscribers'), server.call('HGETALL', base .. 'lanes') }
end

-- number, keys
local function payloads(keys, args)
  local base = keys[1]
  local wrong = check(base, args[1])
  if wrong then return wrong end
  local found = {}
  for i = 2, #args do found[#found + 1] = server.call('HGET', base .. 'payloads', args[i]) end
  return found
end
"""
    # Jobs have to end, and owners to stay owners, also where Valkey has no memory left for new jobs.
    + "".join(
        f"server.register_function{{function_name='{LIBRARY}_{name}', callback={callback}, flags={{{flags}}}}}\n"
        for name, callback, flags in (
            ("claim", "claim", "'allow-oom'"),
            ("release", "release", "'allow-oom'"),
            ("add", "write", ""),
            ("write", "write", "'allow-oom'"),
            ("page", "page", "'allow-oom'"),
            ("tables", "tables", "'allow-oom'"),
            ("payloads", "payloads", "'allow-oom'"),
        )
    )
)
