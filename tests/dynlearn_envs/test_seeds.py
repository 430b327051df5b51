import numpy as np

from dynlearn_envs.seeds import episode_seeds, start_seeds


def test_seeds_differ_by_dataset_episode_and_attempt() -> None:
    seeds = {
        episode_seeds(dataset, index, attempt)[0]
        for dataset in range(10)
        for index in range(10)
        for attempt in range(4)
    }
    assert len(seeds) == 400
    assert all(0 <= seed < 2**32 for seed in seeds)
    seed, generator = episode_seeds(1, 2)
    again, same = episode_seeds(1, 2)
    assert (seed, generator.random()) == (again, same.random())


def test_the_first_attempt_is_what_datasets_were_made_of_before_there_were_others() -> None:
    for seed in (0, 7, 2**40 + 3, 2**63 - 1):
        root = np.random.SeedSequence([seed, 5])
        found, generator = episode_seeds(seed, 5)
        assert found == int(root.generate_state(1)[0])
        assert generator.random() == np.random.default_rng(root.spawn(1)[0]).random()
    assert start_seeds(3, 4) == np.random.SeedSequence(3).generate_state(4).tolist()


def test_seeds_lie_in_a_range_and_none_comes_twice_before_all_had_their_turn() -> None:
    for low, high in ((0, 99), (7, 7), (2**62, 2**62 + 3), (0, 2**63 - 1)):
        seeds = [episode_seeds(1, index, 0, (low, high))[0] for index in range(50)]
        assert all(low <= seed <= high for seed in seeds)
    attempts = [episode_seeds(1, 0, attempt, (10, 13))[0] for attempt in range(4)]
    assert sorted(attempts) == [10, 11, 12, 13]
    assert sorted(start_seeds(5, 4, (10, 13))) == [10, 11, 12, 13]
    assert len({episode_seeds(1, index, 0, (0, 10**6))[0] for index in range(50)}) == 50
    # The policy draws as it would without a range.
    plain, bounded = episode_seeds(1, 2)[1], episode_seeds(1, 2, 0, (0, 9))[1]
    assert plain.random() == bounded.random()
