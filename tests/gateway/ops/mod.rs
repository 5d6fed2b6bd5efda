//! What operators and backends use: admin routes, consumers, the command line, deployment, documentation.

mod admin;
mod consumers;
mod deploy;
mod health;
mod process;
mod rest_fuzz;
mod rest_page;
