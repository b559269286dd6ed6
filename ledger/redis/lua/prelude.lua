-- KEYS[1] is the floor: no entry may be dated at or before it. ARGV[1] is the caller's idea of the time in
-- microseconds, ARGV[2] is 1 if the server's clock decides about it.
local now = tonumber(ARGV[1])

-- wrong gives the refusal of a time that is not the server's. One that is too late could end a hold that still stands,
-- one that is too early could come below an anchor.
-- Scripts also use keys of the same slot that they don't declare. While a Cluster moves that slot to another server, some of them are not
-- here any more, and a script that found out in the middle would leave half of its work: a key that never is tells first.
local function wrong()
  redis.call('EXISTS', KEYS[1] .. '!')
  local floor = tonumber(redis.call('GET', KEYS[1]) or '0')
  local time = now
  if ARGV[2] == '1' then
    local t = redis.call('TIME')
    time = tonumber(t[1]) * 1000000 + tonumber(t[2])
  end
  if time <= floor then time = floor + 1 end
  if now <= floor or now > time + 1000000 or now < time - 5000000 then
    return {'CLOCK', string.format('%.0f', time)}
  end
end

-- incomplete tells whether the ledger is being copied into; KEYS[1] is the floor of a part.
local function incomplete()
  return redis.call('EXISTS', string.sub(KEYS[1], 1, -2) .. 'i') == 1
end

-- The sections of a payment; see value.go.
local function mark(v)
  return string.sub(v, 33, 32 + struct.unpack('>I2', v, 31))
end

local function body(v)
  local at = 33 + struct.unpack('>I2', v, 31)
  return string.sub(v, at, at - 1 + struct.unpack('>I4', v, 27))
end

local function trail(v)
  return string.sub(v, 33 + struct.unpack('>I2', v, 31) + struct.unpack('>I4', v, 27))
end

local function compose(version, check, m, b, t)
  return version .. check .. struct.pack('>I4', #b) .. struct.pack('>I2', #m) .. m .. b .. t
end

-- place puts an open payment where it waits: held until its hold ends, then due.
local function place(due, held, id, open, check, hold)
  if open ~= '1' then
    redis.call('ZREM', due, id)
    redis.call('ZREM', held, id)
  elseif tonumber(hold) > now then
    redis.call('ZADD', held, hold, id)
    redis.call('ZREM', due, id)
  else
    redis.call('ZADD', due, check, id)
    redis.call('ZREM', held, id)
  end
end

-- index makes the changes of the indexes that begin at ARGV[at]: (sign, key, score) each.
local function index(at, id)
  while ARGV[at] do
    if ARGV[at] == '+' then
      redis.call('ZADD', KEYS[tonumber(ARGV[at + 1])], ARGV[at + 2], id)
    else
      redis.call('ZREM', KEYS[tonumber(ARGV[at + 1])], id)
    end
    at = at + 3
  end
end

-- The log is cut into short lists, each from a time until the next one's: Redis keeps a short list in a third of the memory.
-- key names the index: lists by the time that they begin at.

-- list is the one that the time at belongs to.
local function list(key, at)
  return redis.call('ZREVRANGEBYSCORE', key, at, '-inf', 'LIMIT', 0, 1)[1]
end

local function add(key, at, member)
  local name = list(key, at)
  if not name then
    -- The first list begins before all times.
    name = redis.call('ZRANGE', key, 0, 0)[1]
    if not name then
      name = '0'
      redis.call('ZADD', key, '-inf', name)
    end
  elseif redis.call('ZCARD', key .. name) >= 120 and redis.call('ZRANGE', key, -1, -1)[1] == name then
    local last = redis.call('ZRANGE', key .. name, -1, -1, 'WITHSCORES')[2]
    if tonumber(at) > tonumber(last) then
      name = tostring(tonumber(name) + 1)
      redis.call('ZADD', key, at, name)
    end
  end
  redis.call('ZADD', key .. name, at, member)
end

-- log adds the entries from ARGV[at] on: how many, then (time, version) each. It gives where they end.
local function log(key, at, id)
  local n = tonumber(ARGV[at])
  at = at + 1
  for _ = 1, n do
    add(key, ARGV[at], id .. ARGV[at + 1])
    at = at + 2
  end
  return at
end

-- What is in the value of an object; see objects.go.
local function lives(v)
  local expires = tonumber(string.sub(v, 28, 45))
  return expires == 0 or expires > now
end

local function group(v) return string.sub(v, 65, 64 + (string.byte(v, 64) or 0)) end

-- objects is what the keys of all objects of a kind begin with; KEYS[1] is the floor of their part.
local function objects(kind) return string.sub(KEYS[1], 1, -2) .. 'o:' .. kind .. ':' end

-- enlist puts an object on the lists that it belongs to, unlist takes it off.
local function enlist(kind, id, v)
  local part, base, g, expires, due = string.sub(KEYS[1], 1, -2), objects(kind), group(v), string.sub(v, 28, 45), string.sub(v, 46, 63)
  redis.call('ZADD', part .. 'ok', 0, kind)
  redis.call('ZADD', base .. 'l', 0, id)
  if g ~= '' then redis.call('ZADD', base .. 'g:' .. g, 0, id) end
  if tonumber(due) > 0 then redis.call('ZADD', base .. 'd', due, id) end
  if tonumber(expires) > 0 then redis.call('ZADD', part .. 'ox', expires, kind .. ':' .. id) end
end

local function unlist(kind, id, v)
  local part, base, g = string.sub(KEYS[1], 1, -2), objects(kind), group(v)
  redis.call('ZREM', base .. 'l', id)
  if g ~= '' then redis.call('ZREM', base .. 'g:' .. g, id) end
  redis.call('ZREM', base .. 'd', id)
  redis.call('ZREM', part .. 'ox', kind .. ':' .. id)
  if redis.call('EXISTS', base .. 'l') == 0 then redis.call('ZREM', part .. 'ok', kind) end
end
