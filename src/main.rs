//! `anteroom`: see `switchboard`.

use std::process::ExitCode;

use anteroom::queue::event::Level;

fn main() -> ExitCode {
    anteroom::switchboard::main(Level::NEWEST)
}
