//! How the kernel shares a machine out among its threads, for a process whose work comes in crowds.

use rustix::process::{getpriority_process, setpriority_process};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Lets this thread, and those that it starts from now on, finish what others have begun before they
/// take a core (`SCHED_BATCH`, sched(7)). With the usual policy each arrival at a busy machine takes
/// the core from whoever was about to bring the next one, and everybody works in crumbs: 100,000
/// joins on two cores took half as long again, and eight times the log entries. An idle core is taken
/// at once either way.
pub fn batch() {
    if let Err(why) = set_batch() {
        tracing::debug!(why, "the scheduling policy stays as it is");
    }
}

/// Niceness 0, by the library's scale from 0 to 99.
const USUAL_PRIORITY: u8 = 48;

fn set_batch() -> Result<(), String> {
    let niceness = getpriority_process(None);
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    let priority = ThreadPriority::Crossplatform(USUAL_PRIORITY.try_into()?);
    let set = set_thread_priority_and_policy(thread_native_id(), priority, policy);
    // The niceness is set with the policy, and is to stay what it was.
    if let Ok(niceness) = niceness
        && let Err(error) = setpriority_process(None, niceness)
    {
        tracing::debug!(%error, niceness, "the niceness is another than before");
    }
    set.map_err(|error| format!("{error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_started_later_have_the_policy_too() {
        let niceness = || getpriority_process(None).unwrap();
        let before = niceness();
        std::thread::spawn(move || {
            set_batch().unwrap();
            let policy = std::thread::spawn(thread_priority::thread_schedule_policy);
            let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
            assert_eq!(policy.join().unwrap().ok(), Some(batch));
            assert_eq!(niceness(), before);
        })
        .join()
        .unwrap();
    }
}
