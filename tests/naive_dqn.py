"""Textbook DQN: one env, one buffer, one loop, autograd.

Mnih et al. 2015, algorithm 1, as one would write it on a page. It shares no code with
distdqn; only the random numbers come from generators seeded in the same way, or nothing
could be compared step by step.
"""

import copy

import numpy as np
import torch
from torch.nn import functional as F

DRAWN_AT_ONCE = 256  # exploration's uniform numbers


def naive_dqn(
    env,
    network,
    seed,
    num_updates,
    batch_size,
    train_period,
    learning_starts,
    target_period,
    learning_rate,
    discount,
    epsilon,
):
    """Trains `network` in place; returns the actions, and the TD errors of each update.

    train_period: env steps from one update to the next.  epsilon: env steps -> rate.
    """
    actions, td_errors = [], []
    dtype = next(network.parameters()).dtype
    target_network = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    acting_rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0, 0])))
    replay_rng = np.random.Generator(np.random.PCG64([1000 * seed, 0]))
    buffer = []

    vector_seed = int(acting_rng.integers(2**31))
    obs, _ = env.reset(seed=int(np.random.SeedSequence(vector_seed).generate_state(1)[0] >> 1))
    step = 0
    while len(td_errors) < num_updates:
        if step % DRAWN_AT_ONCE == 0:
            explores, choices = acting_rng.random((2, DRAWN_AT_ONCE))
        if step % train_period == 0:
            rate = epsilon(step)
        if explores[step % DRAWN_AT_ONCE] < rate:
            action = int(choices[step % DRAWN_AT_ONCE] * env.action_space.n)
        else:
            with torch.no_grad():
                action = int(network(torch.as_tensor(obs, dtype=dtype)[None]).argmax())
        actions.append(action)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        buffer.append((obs, action, reward, 0.0 if terminated else discount, next_obs))
        obs = env.reset()[0] if terminated or truncated else next_obs
        step += 1
        if step % train_period or step <= learning_starts:
            continue

        batch = [buffer[i] for i in replay_rng.integers(len(buffer), size=batch_size)]
        obs_tm1, a_tm1, r_t, discount_t, obs_t = map(np.array, zip(*batch, strict=True))
        with torch.no_grad():
            q_t = target_network(torch.as_tensor(obs_t, dtype=dtype))
            target = (
                torch.as_tensor(r_t, dtype=dtype)
                + torch.as_tensor(discount_t, dtype=dtype) * q_t.max(dim=1).values
            )
        q_tm1 = network(torch.as_tensor(obs_tm1, dtype=dtype))
        q_a = q_tm1[torch.arange(batch_size), torch.as_tensor(a_tm1)]
        optimizer.zero_grad()
        F.smooth_l1_loss(q_a, target).backward()
        optimizer.step()
        td_errors.append((target - q_a).detach().numpy())
        if len(td_errors) % target_period == 0:
            target_network.load_state_dict(network.state_dict())
    return np.array(actions), np.array(td_errors)
