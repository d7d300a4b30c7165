-- With arguments every request is a POST: its Content-Type, its body, and how often that is repeated.
function init(args)
  if #args == 3 then
    wrk.method = 'POST'
    wrk.headers['Content-Type'] = args[1]
    wrk.body = string.rep(args[2], tonumber(args[3]))
  end
  local made = wrk.format()
  request = function() return made end
end

-- wrk rounds the numbers it prints; this is the exact result, as one line of JSON.
function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"microseconds":%d,"errors":{"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d},'
      .. '"latency":{"p50":%d,"p99":%d,"p999":%d,"max":%d}}\n',
    summary.requests, summary.duration, e.connect, e.read, e.write, e.timeout, e.status,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max))
end
