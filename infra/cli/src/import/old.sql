-- old: the old table under our names. What stands in braces is a column or a constant, quoted by mapping.rs.
-- It can be updated: `status` is the table's own column, and `taken` the word that marks what we took, in the
-- column's type. Texts are compared byte for byte, whatever the language of the column.
CREATE TEMPORARY VIEW punchcard_old AS
SELECT {id} AS id, {id}::text COLLATE "C" AS source_id, {table_name} AS table_name, {status} AS status,
       {taken} AS taken, {status}::text COLLATE "C" AS word, {state} AS state,
       {account}::text COLLATE "C" AS account,
       {kind}::text COLLATE "C" AS kind, {input} AS input, {input_given} AS input_given, {output} AS output,
       {error}::text COLLATE "C" AS error_message, {priority}::numeric AS priority, {price}::numeric AS price,
       {key}::text COLLATE "C" AS key, {created}::timestamptz AS created_at,
       {started}::timestamptz AS started_at, {finished}::timestamptz AS finished_at,
       {run_at}::timestamptz AS run_at
FROM {table} o
