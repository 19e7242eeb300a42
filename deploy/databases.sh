#!/bin/sh
# Run once by PostgreSQL's image, on an empty volume: a database and an owner for each that needs one.
set -eu
for name in ledger prefect label_studio; do
  password=$(printenv "$(echo "$name" | tr a-z A-Z)_PASSWORD")
  psql --set ON_ERROR_STOP=1 --set name="$name" --set password="$password" --username "$POSTGRES_USER" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
SQL
done
