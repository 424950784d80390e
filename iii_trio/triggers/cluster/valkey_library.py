"""Functions that run inside Valkey. Each one is atomic, and checks the fencing number of its caller.

The keys of a mesh are `iii-trio-1:{MESH}:` and one of these: `nodes` (a hash of the nodes), `meta` (the epoch, the last
fencing number, the number of the last line), `log` (a stream), `lease:NODE` and `rows:NODE` (a hash of what it offers).

`iii-trio:{MESH}:layout` has the layout of the nodes that are there, and their version. It has no layout of its own, so that
nodes of all versions find it, and is gone when their leases have run out. A node of another layout is refused meanwhile.
"""

import hashlib
from typing import Final

LAYOUT: Final = "iii-trio-1"
"""The beginning of all keys, with the version of the layout. Nodes of two layouts are refused in one mesh."""
LOG_LENGTH: Final = 20_000
"""The lines that the log keeps, about. A node that lags further reads everything."""

_BODY: Final = (
    f"local LOG_LENGTH, LAYOUT = {LOG_LENGTH}, '{LAYOUT}'\n"
    + """
-- A node cannot be kept from its lease by what another one, or a person, has written.
local function read(record)
  local ok, value = pcall(cjson.decode, record or '')
  if ok and type(value) == 'table' then return value end
  return {}
end

local function add_line(base, kind, name, fence, body)
  local number = server.call('HINCRBY', base .. 'meta', 'number', 1)
  server.call('XADD', base .. 'log', 'MAXLEN', '~', LOG_LENGTH, '*',
    'number', number, 'kind', kind, 'node', name, 'fence', fence, 'body', body)
  return number
end

local function remove(base, kind, name, fence)
  server.call('DEL', base .. 'rows:' .. name)
  server.call('HDEL', base .. 'nodes', name)
  server.call('HDEL', base .. 'meta', 'write:' .. name)
  add_line(base, kind, name, fence, '')
end

local function position(base)
  return { server.call('HGET', base .. 'meta', 'epoch') or '', server.call('HGET', base .. 'meta', 'number') or '0' }
end

-- Return an error if nodes of another layout are there. Otherwise hold the mesh for this layout for the length of a lease.
local function other_layout(base, version, ms)
  local key = 'iii-trio:' .. string.match(base, '{.*}') .. ':layout'
  local there = server.call('GET', key)
  if there and string.match(there, '^%S+') ~= LAYOUT then return server.error_reply('LAYOUT ' .. there) end
  -- Another node may have a longer lease, and may be of another version.
  local left = server.call('PTTL', key)
  server.call('SET', key, there or (LAYOUT .. ' ' .. version), 'PX', math.max(tonumber(ms), left))
end

-- name, address, version, lease in ms, an epoch for a new store, oldest and newest version of links
local function join(keys, args)
  local base, name, address = keys[1], args[1], args[2]
  local refused = other_layout(base, args[3], args[4])
  if refused then return refused end
  local record = server.call('HGET', base .. 'nodes', name)
  if record and server.call('EXISTS', base .. 'lease:' .. name) == 1 then
    local there = read(record)['address']
    if type(there) == 'string' and there ~= address then return server.error_reply('TAKEN ' .. there) end
  end
  server.call('HSETNX', base .. 'meta', 'epoch', args[5])
  -- The clock keeps the numbers rising also where a store has lost everything.
  local time = server.call('TIME')
  local clock = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local last = tonumber(server.call('HGET', base .. 'meta', 'fence') or '0')
  local fence = string.format('%.0f', math.max(last + 1, clock))
  server.call('HSET', base .. 'meta', 'fence', fence)
  server.call('DEL', base .. 'rows:' .. name)
  server.call('HDEL', base .. 'meta', 'write:' .. name)
  local node = cjson.encode({ address = address, version = args[3], fence = fence,
    links = { tonumber(args[6]), tonumber(args[7]) } })
  server.call('HSET', base .. 'nodes', name, node)
  server.call('SET', base .. 'lease:' .. name, fence, 'PX', args[4])
  add_line(base, 'joined', name, fence, node)
  return fence
end

-- name, fence, lease in ms, whether to sweep, version
local function renew(keys, args)
  local base, name, fence = keys[1], args[1], args[2]
  local refused = other_layout(base, args[5], args[3])
  if refused then return refused end
  local holder = server.call('GET', base .. 'lease:' .. name)
  if not holder then
    -- It ran out, and no other node has noticed: nothing has been taken away yet.
    local record = server.call('HGET', base .. 'nodes', name)
    if read(record)['fence'] == fence then holder = fence end
  end
  if holder ~= fence then return server.error_reply('FENCED') end
  server.call('SET', base .. 'lease:' .. name, fence, 'PX', args[3])
  if args[4] == '1' then
    local nodes = server.call('HGETALL', base .. 'nodes')
    for i = 1, #nodes, 2 do
      if server.call('EXISTS', base .. 'lease:' .. nodes[i]) == 0 then
        -- A line with the number 0 has the others read everything.
        local number = read(nodes[i + 1])['fence']
        remove(base, 'lost', nodes[i], type(number) == 'string' and number or '0')
      end
    end
  end
  return position(base)
end

-- name, fence, the changes as [[key, row or false], ...], the number of the write
local function publish(keys, args)
  local base, name, fence = keys[1], args[1], args[2]
  if server.call('GET', base .. 'lease:' .. name) ~= fence then return server.error_reply('FENCED') end
  local last = tonumber(server.call('HGET', base .. 'meta', 'write:' .. name) or '0')
  if tonumber(args[4]) <= last then return 0 end
  server.call('HSET', base .. 'meta', 'write:' .. name, args[4])
  local number = add_line(base, 'offers', name, fence, args[3])
  for _, change in ipairs(cjson.decode(args[3])) do
    if change[2] then
      local before = server.call('HGET', base .. 'rows:' .. name, change[1])
      local since = before and string.match(before, '^%d+') or number
      server.call('HSET', base .. 'rows:' .. name, change[1], since .. ' ' .. change[2])
    else
      server.call('HDEL', base .. 'rows:' .. name, change[1])
    end
  end
  return number
end

-- name, fence
local function leave(keys, args)
  local base, name, fence = keys[1], args[1], args[2]
  if server.call('GET', base .. 'lease:' .. name) == fence then
    server.call('DEL', base .. 'lease:' .. name)
    remove(base, 'left', name, fence)
  end
  return 'OK'
end

local function snapshot(keys, args)
  local base = keys[1]
  local last = server.call('XREVRANGE', base .. 'log', '+', '-', 'COUNT', 1)
  local nodes = server.call('HGETALL', base .. 'nodes')
  local rows = {}
  for i = 1, #nodes, 2 do
    local found = server.pcall('HGETALL', base .. 'rows:' .. nodes[i])
    rows[#rows + 1] = found.err and {} or found
  end
  return { position(base), last[1] and last[1][1] or '0-0', nodes, rows }
end
"""
)
LIBRARY: Final = f"iii_trio_cluster_1_{hashlib.blake2b(_BODY.encode(), digest_size=4).hexdigest()}"
"""The name of the functions. It changes with them, so that the nodes of two versions in one mesh each call their own."""
SOURCE: Final = (
    f"#!lua name={LIBRARY}\n"
    + _BODY
    + "".join(
        f"server.register_function('{LIBRARY}_{name}', {name})\n"
        for name in ("join", "renew", "publish", "leave", "snapshot")
    )
)
