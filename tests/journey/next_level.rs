//! `anteroom`, as it will be when there is one more level of logs: whatever is to happen then can be tried
//! before there is anything new at it.

use std::process::ExitCode;

use anteroom::queue::event::Level;

fn main() -> ExitCode {
    anteroom::switchboard::main(Level::NEWEST.next())
}
