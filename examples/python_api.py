"""Train, read what came of it, and play: the Python API from end to end.

python python_api.py
"""

import argparse

import distdqn


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--total-env-steps", type=int, default=100_000)
    parser.add_argument("--mode", default="async")
    arguments = parser.parse_args()

    # The keys are those of YAML files and flags; `distdqn train --help` lists them all.
    values = {"total_env_steps": arguments.total_env_steps, "eval.stop_at_return": 195}
    values |= {"env.wrappers": ["TimeLimit(max_episode_steps=200)"], "mode": arguments.mode}
    config = distdqn.load_config(preset="cartpole", values=values)
    summary = distdqn.train(config)
    print(f"{summary.env_steps:,} env steps, {summary.env_steps_per_s:,.0f} each second")
    print(f"mean return of the best weights: {summary.best_eval_return_mean:.1f}")

    policy = distdqn.load_policy(summary.run_folder)  # its summary.json has all figures
    env = policy.make_env()  # as in training, wrapper included
    for seed in range(3):
        obs, _ = env.reset(seed=seed)
        total, ended = 0.0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(policy(obs))
            total, ended = total + float(reward), terminated or truncated
        print(f"greedy episode {seed}: return {total:.0f}")


if __name__ == "__main__":
    main()
