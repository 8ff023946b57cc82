"""The same crowd by formula: what each resource takes at most, and what follows for the whole."""

import math

import scale_sizes as sizes

# The entry size is where the round that it causes brings just so many facts; it settles in a few turns.
TURNS = 200
# Of a round in which people arrive evenly: half of it until their entry leaves, and the next one whole.
ROUNDS_WAITED = 1.5


def entry_seconds(setting, costs, facts, batch):
    log = setting.log(costs)
    return setting.fsync / batch + log.entry + sizes.entry_bytes(facts) * log.byte


def joins_max(setting, costs):
    """How many joins a second each resource takes at most, in entries as large as they may be."""
    facts = setting.facts_per_entry_max
    batch = min(setting.log(costs).batch_max, setting.nodes)
    entries = 1 / entry_seconds(setting, costs, facts, batch)
    projector = costs.projector_entry / facts + costs.projector_fact
    return {
        "the nodes' cores": setting.nodes * setting.cores / setting.join_cpu(costs),
        "the log": facts * entries,
        "the projector": 1 / projector,
    }


def shares(setting, costs, simulation):
    """How much of each resource a simulated crowd needed until its last one was shown."""
    last = simulation.shown_last()
    needed = {name: setting.people / most / last for name, most in joins_max(setting, costs).items()}
    needed["the nodes' cores"] += simulation.feed_cpu_seconds() / setting.cores / last
    needed["the feed's fan-out"] = simulation.fan_busy / last
    needed["the log server's network"] = simulation.sent_bytes() / costs.nic / last
    return needed


def rounds(setting, costs, joins):
    """At so many joins a second: facts in an entry, and seconds from one entry of a node to its next."""
    log, facts, batch = setting.log(costs), 1.0, 1.0
    there = 2 * setting.hop(costs) + log.answer
    for _ in range(TURNS):
        alone = entry_seconds(setting, costs, max(1, round(facts)), batch)
        if log.batch_max == 1:
            seconds = max(setting.nodes * alone, there + alone)
        else:
            # A batch is what came during the one before it, in the middle of which an entry comes.
            together = batch * alone
            seconds = there + ROUNDS_WAITED * together
            batch = max(1.0, (batch + setting.nodes * min(1, together / seconds)) / 2)
        brought = joins / setting.nodes * seconds
        if brought < 1 and joins * alone < 1:
            # Nearly each finds the log idle, and leaves alone.
            return 1, there + alone
        facts = (facts + min(setting.facts_per_entry_max, max(1.0, brought))) / 2
    return facts, seconds


def expected(setting, costs):
    """What a simulation's figures should come to."""
    most = joins_max(setting, costs)
    accepted = setting.people / most["the nodes' cores"]
    answered = max(setting.within, accepted, setting.people / most["the log"])
    shown = max(answered, setting.people / most["the projector"])
    facts, seconds = rounds(setting, costs, setting.people / answered)
    waited = seconds * (ROUNDS_WAITED if facts > 1 else 1)
    entries = setting.people / facts
    delta = sizes.delta_bytes(setting.people, facts)
    head = sizes.head_bytes(setting.people) + sizes.PACKET_BYTES
    frames = min(shown / sizes.FRAME_EVERY, entries)
    told = sizes.FRAME_EVERY / 2 + setting.hop(costs) + costs.network_hop
    return {
        "answered_last_s": answered + waited,
        "shown_last_s": shown + waited + told,
        "answer_p50_ms": 1e3 * ((answered - setting.within) / 2 + waited),
        "entries_per_s": entries / answered,
        "log_mb": entries * sizes.entry_bytes(max(1, round(facts))) / 1e6,
        "feed_kb_per_s_a_node": (frames * head + entries * delta) / shown / 1e3,
    }


def connections(setting):
    """How many clients the log's server has."""
    return (setting.relays or setting.nodes) + sizes.OTHER_CONNECTIONS


def beyond(setting, figures):
    """The bounds of the code and of nats.conf that this crowd goes beyond."""
    bounds = {
        f"{connections(setting)} connections of {sizes.NATS_CONNECTIONS_MAX}":
            connections(setting) > sizes.NATS_CONNECTIONS_MAX,
        # As many in the channel to the writer, and as many with the writer itself.
        f"{figures['waiting_max']:,} facts wait of {2 * sizes.FACTS_WAITING_MAX:,}":
            figures["waiting_max"] > 2 * sizes.FACTS_WAITING_MAX,
        "some hear log_unavailable first": figures["answer_max_s"] > sizes.APPEND_WAIT_MAX,
        "numbers are stale": figures["behind_max_s"] > sizes.BEHIND_MAX,
        "nodes take snapshots": figures["behind_entries_max"] > sizes.LONG_ENTRIES,
        "the log is full": figures["log_mb"] * 1e6 > sizes.FULL * sizes.STREAM_MAX_BYTES,
    }
    return [name for name, is_beyond in bounds.items() if is_beyond]


def told(people, nodes, cores, costs):
    """What `tell` of the simulation should come to: the last of one move, pushes a second, cores."""
    bounds = [0, sizes.FRONT_PLACES, *(places for places, _ in sizes.PAUSES), people]
    pauses = [0, *(pause for _, pause in sizes.PAUSES), sizes.PAUSE_MAX]
    walk = sizes.WALK_EVERY
    pushes = 0
    for low, high, pause in zip(bounds, bounds[1:], pauses):
        # Half the jitter on average, and half a walk until one passes by.
        between = max(walk, pause * (1 + 1 / sizes.JITTER / 2) + walk / 2)
        pushes += max(0, min(high, people) - low) / between
    return {
        "last_told_ms": 1e3 * people / nodes / cores * (costs.push + costs.look),
        "pushes_per_s": pushes,
        "cores": pushes * costs.push + people / walk * costs.look,
    }


def kept_alive(people, costs):
    """Pushes a second, and the cores that they and looking take, while nothing moves."""
    between = sizes.KEEP_ALIVE * (1 + 1 / sizes.JITTER / 2) + sizes.LOOK_EVERY / 2
    pushes = people / between
    return {"pushes_per_s": pushes, "cores": pushes * costs.push + people / sizes.LOOK_EVERY * costs.look}


def memory(people, nodes, costs):
    """What a line of so many takes where, and what it takes to begin anew."""
    million = people / 1e6
    snapshot = sizes.snapshot_bytes(people)
    parts = math.ceil(snapshot / sizes.PART_BYTES_MAX)
    of_node = people / nodes * (costs.user_kib + costs.kernel_kib) + million * costs.replica_kib
    return {
        "node_mb": of_node * 1024 / 1e6,
        "line_mb": million * costs.line_mb,
        "rebuild_mb": million * costs.rebuild_mb,
        "replay_joins_s": people / costs.replay_facts,
        "replay_lives_s": people * sizes.LIFE_FACTS / costs.replay_facts,
        "restart_s": million * costs.restart_seconds,
        "snapshot_kb": snapshot / 1e3,
        "snapshot_ms": 1e3 * (2 * parts * costs.network_hop + snapshot / costs.nic),
        "lives_gb": people * sizes.LIFE_BYTES / 1e9,
    }
