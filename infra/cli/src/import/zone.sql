-- zone: a time zone as PostgreSQL writes it ($1 in any letters); no row if it knows none of that name.
SELECT z.name FROM pg_timezone_names z WHERE lower(z.name COLLATE "C") = lower($1 COLLATE "C")
ORDER BY z.name = $1 DESC, z.name LIMIT 1
