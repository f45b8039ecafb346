select host(client_addr) as address, usename::text as "role!",
    substr(application_name, length('reading-sessions-') + 1) as "pool!",
    count(*) as "connections!",
    count(*) filter (where state = 'active') as "active!",
    coalesce(
        extract(epoch from max(clock_timestamp() - xact_start)), 0
    )::float8 as "longest_transaction!"
from pg_stat_activity
where datname = current_database()
    and backend_type = 'client backend'
    and application_name like 'reading-sessions-%'
    and usename is not null
    -- The connection that runs this statement.
    and pid <> pg_backend_pid()
group by client_addr, usename, application_name
order by client_addr, usename, application_name
