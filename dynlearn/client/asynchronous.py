"""AsyncDynamicsClient: `DynamicsClient` for an asyncio event loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import copy
from types import TracebackType
from typing import Any, Self

from dynlearn.client.answers import RemotePrediction, RemoteRollout, RemoteSample, RemoteSpec
from dynlearn.client.calls import ModelCalls
from dynlearn.client.certificates import Verify
from dynlearn.client.connections import AsyncConnections
from dynlearn.client.exchange import Exchange, Result, Server
from dynlearn.config.choices import Propagation


class AsyncDynamicsClient:
    """A served model over HTTP, for event loops; calls may run at the same time.

    Each loop has connections of its own, which `asyncio.run` closes if nobody else does. It can be
    sent to another process.
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
        """Name a served model; nothing is sent yet. All as for `DynamicsClient`."""
        self._calls = ModelCalls(Server(url, timeout, retries, token), model, version, as_torch)
        self._connections = AsyncConnections(self._calls.server.is_https, verify)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._calls.server.url

    async def spec(self) -> RemoteSpec:
        """See `DynamicsClient.spec`; asked of the server once."""
        return await self._carry_out(self._calls.spec())

    async def predict(
        self,
        observation: Any,
        action: Any,
        outputs: Sequence[str] = ("mean", "aleatoric", "epistemic"),
        member: Any = None,
        members: Any = None,
        context: Any = None,
    ) -> RemotePrediction:
        """See `DynamicsClient.predict`."""
        return await self._carry_out(
            self._calls.predict(observation, action, outputs, member, members, context)
        )

    async def sample(self, observation: Any, action: Any, seed: int) -> RemoteSample:
        """See `DynamicsClient.sample`."""
        return await self._carry_out(self._calls.sample(observation, action, seed))

    async def rollout(
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
        """See `DynamicsClient.rollout`."""
        return await self._carry_out(
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

    @asynccontextmanager
    async def pin(self) -> AsyncIterator[Self]:
        """See `DynamicsClient.pin`."""
        plan = copy(self)
        plan._calls = await self._carry_out(self._calls.pinned())
        yield plan

    async def close(self) -> None:
        """Close the connections; a later call opens others."""
        await self._connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _carry_out(self, exchange: Exchange[Result]) -> Result:
        try:
            step = next(exchange)
            while True:
                if step.pause:
                    await asyncio.sleep(step.pause)
                step = exchange.send(await self._connections.send(step))
        except StopIteration as end:
            result: Result = end.value
            return result
