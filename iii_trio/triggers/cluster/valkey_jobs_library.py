"""Functions for the jobs of a mesh that run inside Valkey. Each one is atomic, and checks the fencing number of its caller.

The keys are `iii-trio-1:{MESH}:queues:` and one of these: `shards` (their number) and `nodes` (those that take part, sorted
by the end of their time). Those of a shard go on with its number, `:` and one of these: `owner` (a hash: the node, the
number of its lease, and the number of its last write), `lease` (exists as long as the lease), `order` (the keys of the
jobs, sorted), `records` and `payloads` (hashes, by key), `subscribers` and `lanes` (hashes), and `damaged` (a hash of
records that were set aside).
"""

from typing import Final

LIBRARY: Final = "iii_trio_jobs_2"
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

-- node, lease in ms, shards unless there are some, whether the node takes part, and shard and number of each lease it has
local function claim(keys, args)
  local base, node, takes_part = keys[1], args[1], args[4] == '1'
  if server.call('EXISTS', base .. 'owner') == 1 then
    return server.error_reply('OLD the jobs of this mesh have the layout of an earlier version, in which one node owns ' ..
      'all queues: have that version finish them, then delete the keys ' .. base .. '*')
  end
  local shards = server.call('GET', base .. 'shards')
  if not shards then
    shards = args[3]
    if takes_part then server.call('SET', base .. 'shards', shards) end
  end
  local time = server.call('TIME')
  local clock = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  if takes_part then
    server.call('ZADD', base .. 'nodes', string.format('%.0f', clock + tonumber(args[2])), node)
  else
    server.call('ZREM', base .. 'nodes', node)
  end
  server.call('ZREMRANGEBYSCORE', base .. 'nodes', '-inf', string.format('%.0f', clock))
  local nodes = server.call('ZCARD', base .. 'nodes')
  local leases = {}
  for i = 5, #args, 2 do leases[args[i]] = args[i + 1] end
  local found, free, owned = {}, {}, 0
  for shard = 0, tonumber(shards) - 1 do
    local name = base .. shard .. ':'
    local owner = server.call('HMGET', name .. 'owner', 'node', 'number')
    local holder, last = owner[1] or '', owner[2] or '0'
    -- It may have run out. As long as no other lease has begun, nothing has been taken away.
    if last ~= '0' and last == leases[tostring(shard)] then
      server.call('SET', name .. 'lease', last, 'PX', args[2])
      owned = owned + 1
    elseif holder == node or server.call('EXISTS', name .. 'lease') == 0 then
      free[#free + 1] = { shard, last }
      holder, last = '', '0'
    end
    found[#found + 1] = holder
    found[#found + 1] = last
  end
  if not takes_part then return { nodes, found } end
  local quota = math.ceil(tonumber(shards) / nodes)
  for i = 1, math.min(#free, quota - owned) do
    local shard, last = free[i][1], free[i][2]
    local name = base .. shard .. ':'
    -- The clock keeps the numbers rising also where a store has lost everything.
    local new = string.format('%.0f', math.max(tonumber(last) + 1, clock))
    server.call('HSET', name .. 'owner', 'node', node, 'number', new, 'serial', '0')
    server.call('SET', name .. 'lease', new, 'PX', args[2])
    found[shard * 2 + 1] = node
    found[shard * 2 + 2] = new
  end
  return { nodes, found }
end

-- shard, number, the node if it takes part no more
local function release(keys, args)
  local base, number = keys[1] .. args[1] .. ':', args[2]
  local wrong = check(base, number)
  if wrong then return 'OK' end
  -- A write that is on its way still must not arrive after this.
  server.call('HSET', base .. 'owner', 'node', '', 'number', string.format('%.0f', tonumber(number) + 1))
  server.call('DEL', base .. 'lease')
  if args[3] ~= '' then server.call('ZREM', keys[1] .. 'nodes', args[3]) end
  return 'OK'
end

-- shard, number, serial, and four values for each step: a letter, a key, a value, another value
local function write(keys, args)
  local base = keys[1] .. args[1] .. ':'
  local wrong = check(base, args[2])
  if wrong then return wrong end
  if tonumber(args[3]) <= tonumber(server.call('HGET', base .. 'owner', 'serial')) then return 0 end
  server.call('HSET', base .. 'owner', 'serial', args[3])
  for i = 4, #args, 4 do
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

-- shard, number, the key behind which to begin
local function page(keys, args)
  local base = keys[1] .. args[1] .. ':'
  local wrong = check(base, args[2])
  if wrong then return wrong end
  local found, size = {}, 0
  for _, key in ipairs(server.call('ZRANGEBYSCORE', base .. 'order', '(' .. args[3], '+inf', 'LIMIT', 0, PAGE_JOBS)) do
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

-- shard, number
local function tables(keys, args)
  local base = keys[1] .. args[1] .. ':'
  local wrong = check(base, args[2])
  if wrong then return wrong end
  return { server.call('HGETALL', base .. 'subscribers'), server.call('HGETALL', base .. 'lanes') }
end

-- shard, number, keys
local function payloads(keys, args)
  local base = keys[1] .. args[1] .. ':'
  local wrong = check(base, args[2])
  if wrong then return wrong end
  local found = {}
  for i = 3, #args do found[#found + 1] = server.call('HGET', base .. 'payloads', args[i]) end
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
