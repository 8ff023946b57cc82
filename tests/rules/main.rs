//! The rules of the line as tests: facts in, text out (`story`), and properties of random histories.

mod story;
mod retell;
mod random;
mod facts;
mod decisions;
mod due;
mod outage;
mod time;
mod clocks;
mod who;
mod missed;
mod graces;
mod presence;
mod levels;
mod rate;
mod site;
mod load;
mod places;
mod history;
mod audit;
mod readings;
mod feed;
mod estimate;
mod told;
#[path = "../../tools/measure/src/backtest/mod.rs"]
mod backtest;
