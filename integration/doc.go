// Package integration proves what the project promises, each against the real
// adapter as a process, real NATS and real gRPC. Every promise has a number, and
// a test of that name in this folder.
//
//	 1 EventReachesEveryGateway  a plain publish from any NATS client reaches gateways on every protocol
//	 2 AcknowledgedPaths         JetStream publish, NATS request and adapter revoke return when it is stored
//	 3 TokenTypes                JWT, API_KEY and Default, in seconds, milliseconds, unknown and never
//	 4 LogLines                  both lines are those that operators of Choreo Connect know
//	 5 DeadLetters               what is not understood is kept with its reason, and without its token in the log
//	 6 ExpiredAndDuplicate       an expired event is dropped, a duplicate makes no new version
//	 7 ClosedByDefault           who has no credentials may publish tokenRevocation, and nothing else
//	 8 RestartLosesNothing       the set and the version are the same after a stop, and after kill -9
//	 9 StreamsEndWithError       a stop takes less than 5 s, and a client that reconnects on errors alone comes back
//	10 ResumeByVersion           who reconnects gets what came since, and nothing else
//	11 ReApproval                an approval reaches every gateway that can hear of it
//	12 NobodyBeforeTheSet        gateways and probes are told that a replica without its hub is not ready
//	13 ExternalHub               replicas on one NATS server serve the same version for the same content
//	14 MutualTLS                 a gateway without the right certificate is refused
//	15 NotOnlyGo                 a client generated from the .proto by another language works unmodified
//	16 CommandLine               every command does what its help says, with exit codes that mean something
//	17 OpaqueTokenNowhere        an opaque token is in no log line, metric, stored record or file
//	18 LateGatewayLearnsAll      a gateway that connects late learns of every earlier revocation
//	19 Observable                health, readiness and metrics tell what happened
//	20 OneAdapterPerStore        a second adapter on a store refuses to start and names the first
//	21 KilledAtAnyMoment         kill -9 under load, again and again: what was acknowledged is there, no version is lower
//	22 RestoredBackup            a log that went back is refused, rebased, and every gateway converges
//	23 UpgradeAndBack            a replica of the next format beside those of this one, under load, and back
//	24 Replay                    a dead letter is published again and makes its revocation, or is purged for good
//	25 CertificatesChange        a changed certificate or authority counts for who connects next, and ends no stream
//	26 FullDisk                  publishing fails and says why, what is stored is served, and it goes on when there is space
//	27 HubRoles                  on the cluster of resources/conf every role does its own job, and nothing else
//	28 RulesAreKept              what is revoked by client, user or claim is a rule, never a token, and survives a restart
//	29 BatchOfManyTokens         ten thousand tokens in one event are revoked, or none if one is not understood
//	30 RevokeByClaim             adapter revoke and approve with --claim make a rule and lift it
//	31 OpaqueInEveryEvent        what 17 says holds for lists, rules and events of every type
//	32 AMQPBroker                events of API-M's broker reach gateways; what it lost while it was killed is read from the control plane
//	33 FullSync                  the control plane's list is added, in both shapes; no answer of it un-revokes
//	34 NotifyEndpoint            a key manager is told 200 when the log has it, and 400, 401 or 413 otherwise
//	35 SourcesReported           every way in says whether it is connected, its last event, its lag and its errors
//	36 ReadyAfterFullSync        no gateway is served before the control plane was read, where that is required
//	37 RulesReachGateways        a rule reaches who asks for rules, on a stream of its own or beside tokens, and nobody else
//	38 TenantsAskedFor           who asks for some tenants gets what is theirs and what is of none
//	39 BatchIsOneResponse        what is stored as one batch comes to a gateway as one response
//	40 ClaimedOnce              of any number of claims of a one-time token, at any adapters, one is granted
//	41 RevokedCallIsRejected    a call through nginx with a revoked token, in any place that carries one, gets 401; approved again it passes
//	42 RulesAreEnforced         a rule rejects what was issued before, and nothing that was issued later
//	43 EnforcerKeepsEnforcing   without an adapter, restarted or killed, an enforcer rejects what it knew
//	44 NothingPassesBeforeTheSet  an enforcer without a complete set lets nothing pass, and is not ready
//	45 StaleIsAPolicy           while nobody confirms that the set is complete, the operator's word counts, and the metric says so
//	46 EnforcerFailsOver        an enforcer goes to the next adapter and goes on where it was
//	47 OneTimeExactlyOnce       of 1,600 simultaneous calls at eight gateways one passes, in every round
//	48 OneTimeRoutes            a token is used up on its route and nowhere else, in whatever spelling, and not while nobody can tell
//	49 ExtAuthz                 Envoy is told what it needs to reject a call
//	50 CaddyExample             Caddy with our example rejects a revoked call, whatever a client says of where it calls
//	51 ReceiptOfARevocation     adapter revoke --wait says which gateways have it, and adapter gateways who is behind or gone
//	52 DashboardQueries         every query of the Grafana dashboard is answered by a Prometheus that looks at real processes
//	53 AlertRules               no alert fires while all is well, and those whose cause is made do
//	54 BulkFile                 a hundred thousand tokens of a file are revoked once each, by a command that is killed and interrupted
//	55 Completion               bash offers commands, values and dead letters
//	56 ReceiptWithoutOneOfThreeAdapters  of an adapter that is paused or killed the gateways are unreachable, and the others are told of
//	57 RevokeOverHTTP           one call by RFC 7009 reaches gateways on every protocol, and is there after kill -9
//	58 CascadeOverHTTP          a refresh token falls with its access token, and no gateway is told of it
//	59 ListGoesOnAfterAKill     a list that a kill interrupts is finished by the same call
//	60 ReceiptsOverReplicas     Prefer: wait tells of the gateways of every replica
//	61 ClientsOfTheHub          a client of the hub may call any replica at once, and none once it is removed
//	62 AuditIsKept              who did what is there after a kill, and no token is in it
//	63 PageOfTheAdapter         in a real browser an operator signs in, revokes, and sees the receipt arrive
//	64 ControlWithoutTheHub     without its hub the control API answers 503, and nothing is lost silently
package integration
