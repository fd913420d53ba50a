-- password: lets a role log in, by the verifier of a password that the server never sees.
ALTER ROLE {role} LOGIN PASSWORD '{verifier}';
