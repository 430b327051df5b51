"""DynamicsClient: predictions and rollouts of a served model, as numpy arrays or torch tensors.

Shapes: E members, B batch, O observation, A action, D predicted columns, S start states,
P candidates, N particles, H horizon, G context.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from types import TracebackType
from typing import Any, Self

from dynlearn.client.answers import RemotePrediction, RemoteRollout, RemoteSample, RemoteSpec
from dynlearn.client.calls import ModelCalls
from dynlearn.client.certificates import Verify
from dynlearn.client.connections import Connections
from dynlearn.client.exchange import Exchange, Result, Server
from dynlearn.config.choices import Propagation


class DynamicsClient:
    """A served model over HTTP, on connections that are kept; threads may share it.

    It can be sent to another process, where it opens connections of its own.
    """

    def __init__(
        self,
        url: str,
        model: str,
        version: str | int | None = None,
        timeout: float = 30.0,
        *,
        retries: int = 5,
        token: str | None = None,
        as_torch: bool = False,
        verify: Verify = True,
    ):
        """Name a served model; nothing is sent yet.

        Args:
            url: the server's address, such as ``http://127.0.0.1:8000``.
            model: the model's name.
            version: the version to insist on; None takes the one that the server serves.
            timeout: seconds for a call, its retries included; the server is told what is left.
            retries: how often a call is tried again when its connection is lost or the server
                answers 503. Pauses double from at most 0.1 s to at most 5 s, so that 5 retries
                bridge about 1.5 s; 20 bridge a server's restart.
            token: the bearer token; None takes the environment's ``DYNLEARN_TOKEN``, if any.
            as_torch: give torch tensors in place of numpy arrays.
            verify: what an https server's certificate is checked by: the file of an authority or
                a folder of them, or a context of `ssl`. True takes what ``SSL_CERT_FILE``,
                ``SSL_CERT_DIR``, ``REQUESTS_CA_BUNDLE`` or ``CURL_CA_BUNDLE`` names, else the
                public authorities; False checks nothing.

        Raises:
            InvalidInput: one of these cannot be.
        """
        self._calls = ModelCalls(Server(url, timeout, retries, token), model, version, as_torch)
        self._connections = Connections(self._calls.server.is_https, verify)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._calls.server.url

    @property
    def spec(self) -> RemoteSpec:
        """What the model takes and predicts, asked of the server once.

        Raises:
            NotFound: the server has no such model or version.
            Unauthorized: it wants a token, or another one.
            Unavailable: there is no server.
        """
        return self._carry_out(self._calls.spec())

    def predict(
        self,
        observation: Any,
        action: Any,
        outputs: Sequence[str] = ("mean", "aleatoric", "epistemic"),
        member: Any = None,
        members: Any = None,
        context: Any = None,
    ) -> RemotePrediction:
        """Predict the next observation's distribution.

        Args:
            observation: [B, O].
            action: [B, A], or integers [B] where actions are discrete.
            outputs: what to fetch: mean, variance, covariance, aleatoric, epistemic, member_means,
                member_variances, member_scale_trils, or reward_mean of a model that has learned
                the reward. With the default, ``covariance``,
                ``variance`` and ``std`` follow from what is fetched; matrices are large, so ask
                for less where time counts.
            member: which member alone answers each row, integers [B].
            members: which members make up the mixture, integers; all of them where it is None.
            context: the goal that a learned reward is of, [B, G].

        Raises:
            InvalidInput: a shape or a name is wrong, or a value is not finite.
            TooLarge: there are more rows than the server takes.
            NotFound: the server has no such model or version.
            Unauthorized: the server wants a token, or another one.
            Forbidden: the token's role does not allow it.
            DeadlineExceeded: there is no answer in time.
            Unavailable: there is no server, it is busy, or another version answered.
        """
        return self._carry_out(
            self._calls.predict(observation, action, outputs, member, members, context)
        )

    def sample(self, observation: Any, action: Any, seed: int) -> RemoteSample:
        """Draw one next observation a row, as `DynamicsModel.sample` does in process.

        Args:
            observation: [B, O].
            action: [B, A], or integers [B] where actions are discrete.
            seed: with it the draw is determined.

        Raises:
            DynlearnError: as `predict`.
        """
        return self._carry_out(self._calls.sample(observation, action, seed))

    def rollout(
        self,
        observations: Any,
        actions: Any,
        particles: int = 20,
        propagation: Propagation = "tsinf",
        seed: int = 0,
        reward: str | None = None,
        environment: str | None = None,
        context: Any = None,
        discount: float = 1.0,
        risk_aversion: float = 0.0,
        outputs: Sequence[str] | None = None,
    ) -> RemoteRollout:
        """Imagine trajectories, and judge them where a reward is named.

        Args:
            observations: start states, [S, O].
            actions: [S, P, H, A], or integers [S, P, H] where actions are discrete.
            particles: N, imagined trajectories for each action sequence.
            propagation: how members are chosen along the way.
            seed: with it the answer is determined.
            reward: the name of a reward that the server knows, one of ``spec.rewards``, or
                ``learned``, the model's own.
            environment: whose reward is meant, where several have one of that name.
            context: what the reward needs beside the state, such as the goal, [S, G].
            discount: of the reward, a step.
            risk_aversion: standard deviations over particles to subtract from the return.
            outputs: what to fetch: returns or return_std, which need a reward, mean, variance,
                covariance or particles. None fetches returns where there is a reward, else mean
                and covariance.

        Raises:
            DynlearnError: as `predict`.
        """
        return self._carry_out(
            self._calls.rollout(
                observations,
                actions,
                context,
                outputs,
                particles=particles,
                propagation=propagation,
                seed=seed,
                reward=reward,
                environment=environment,
                discount=discount,
                risk_aversion=risk_aversion,
            )
        )

    @contextmanager
    def pin(self) -> Iterator[Self]:
        """Give a client, on the same connections, of the version that is served now.

        Every call inside gets that version's answer, though the server swaps it meanwhile.

        Raises:
            DynlearnError: as `spec`.
        """
        plan = copy(self)
        plan._calls = self._carry_out(self._calls.pinned())
        yield plan

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _carry_out(self, exchange: Exchange[Result]) -> Result:
        try:
            step = next(exchange)
            while True:
                if step.pause:
                    time.sleep(step.pause)
                step = exchange.send(self._connections.send(step))
        except StopIteration as end:
            result: Result = end.value
            return result
