-- refuse_gone: refuses with `gone` what is, or could be, the id of a job that is past its retention.
SELECT punchcard.refuse_gone($1)
